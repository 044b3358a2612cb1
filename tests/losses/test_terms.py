"""Loss terms: forms, normalizations, weights of structures and masses, against explicit sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase.data import atomic_masses

from hesse.errors import ConfigError, MissingLabelError
from hesse.losses import Loss, LossTerm, LossWeights, RampConfig, weighted_loss
from hesse.structures import Properties, Structure, collate

SIZES = [3, 1, 4]
RNG = np.random.default_rng(5)
DELTA = 0.7


def record(seed: int) -> Properties:
    rng = np.random.default_rng(seed)
    parts = [
        Properties.single(
            n,
            energy=rng.normal(),
            forces=rng.normal(size=(n, 3)),
            probes=rng.normal(size=(2, n, 3)),
            hvp=rng.normal(size=(2, n, 3)),
            hessian=rng.normal(size=(n, 3, n, 3)),
            atomic_energies=rng.normal(size=n),
            stress=rng.normal(size=(3, 3)),
        )
        for n in SIZES
    ]
    return Properties.concatenate(parts)


LABELS, GUESS = record(1), record(2)
NUMBERS = [[8, 1, 1], [6], [6, 1, 1, 8]]
VOLUMES = [216.0, 343.0, 512.0]
BATCH = collate(
    [
        Structure(np.array(z), RNG.uniform(0, 6, (len(z), 3)), cell=np.eye(3) * v ** (1 / 3), pbc=True)
        for z, v in zip(NUMBERS, VOLUMES, strict=True)
    ],
    1.0,
)


def differences(name: str, i: int) -> np.ndarray:
    """Residuals of structure i; for products one row per pair."""

    def values(labels: Properties) -> np.ndarray:
        one = labels.select(torch.tensor([i]))
        value = one[name]
        assert value is not None
        return value.numpy()

    difference: np.ndarray = values(GUESS) - values(LABELS)
    return difference.reshape(2, -1) if name == "hvp" else difference.reshape(1, -1)


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mse": np.square,
    "mae": np.abs,
    "huber": lambda x: np.where(np.abs(x) <= DELTA, x**2, 2 * DELTA * np.abs(x) - DELTA**2),
}
SCALES: dict[str, Callable[[int], float]] = {"energy": lambda n: n**0.25, "hvp": lambda n: math.sqrt(3 * n)}


def expected(name: str, form: str, normalization: str) -> float:
    """The term with loops over structures."""
    each, counts = [], []
    for i, n in enumerate(SIZES):
        scale = 1.0 if normalization == "components" else SCALES.get(name, lambda _: 1.0)(n)
        scale = float(n) if normalization == "atom" else scale
        if (name, normalization) == ("stress", "structure"):
            scale = n / VOLUMES[i]
        values = FUNCTIONS["mse" if form == "rmse" else form](differences(name, i) / scale)
        if normalization == "components":
            each.append(values.mean(0).sum())
            counts.append(values.shape[1])
        else:
            each.append(values.mean())
            counts.append(1)
    mean = sum(each) / sum(counts)
    return float(math.sqrt(mean) if form == "rmse" else mean)


@pytest.mark.parametrize("form", ["mse", "mae", "huber", "rmse"])
@pytest.mark.parametrize("name", ["energy", "forces", "hvp", "hessian", "atomic_energies", "stress"])
@pytest.mark.parametrize("normalization", ["structure", "components", "atom"])
def test_forms_and_normalizations(name: str, form: str, normalization: str) -> None:
    options = {"quantity": name, "form": form, "normalization": normalization}
    options |= {"delta": DELTA} if form == "huber" else {}
    if normalization == "atom" and name != "energy":
        with pytest.raises(ConfigError, match="meant for energies"):
            LossTerm(**options)
        return
    total, terms = weighted_loss(GUESS, LABELS, Loss([LossTerm(weight=3.0, **options)]), batch=BATCH)
    assert float(terms[name]) == pytest.approx(expected(name, form, normalization), rel=1e-12)
    assert float(total) == pytest.approx(3.0 * expected(name, form, normalization), rel=1e-12)


def test_huber_is_the_square_for_small_and_grows_linearly_for_large_residuals() -> None:
    term = LossTerm(quantity="energy", form="huber", delta=DELTA, normalization="components")
    sizes = torch.tensor([0.1, DELTA, 2 * DELTA, 20 * DELTA], dtype=torch.float64, requires_grad=True)
    labels = Properties(n_atoms=torch.ones(4, dtype=torch.int64), energy=torch.zeros(4, dtype=torch.float64))
    total, _ = weighted_loss(labels.replace(energy=sizes), labels, Loss([term]))
    (slope,) = torch.autograd.grad(4 * total, sizes)
    torch.testing.assert_close(slope, 2 * sizes.detach().clamp(max=DELTA))


def test_the_root_of_hippynn() -> None:
    """RMSE plus MAE over all components, as hippynn adds them."""
    terms = [
        LossTerm(quantity="forces", form="rmse", normalization="components"),
        LossTerm(quantity="forces", form="mae", normalization="components", name="forces_mae"),
    ]
    total, _ = weighted_loss(GUESS, LABELS, Loss(terms))
    assert GUESS.forces is not None
    assert LABELS.forces is not None
    difference = GUESS.forces - LABELS.forces
    assert float(total) == pytest.approx(float(difference.square().mean().sqrt() + difference.abs().mean()), rel=1e-12)


@pytest.mark.parametrize("name", ["energy", "forces", "hvp", "hessian"])
def test_weights_of_structures_count_like_repeated_structures(name: str) -> None:
    """A structure of weight 3 counts as if it were there three times; one of weight 0 as if it were not. The sum of
    the weights is not the number of structures, which would hide a wrong divisor."""
    loss = Loss([LossTerm(quantity=name)])
    weighted = LABELS.replace(weight=torch.tensor([3.0, 1.0, 0.0]))
    repeated = torch.tensor([0, 0, 0, 1])
    one, _ = weighted_loss(GUESS, weighted, loss)
    other, _ = weighted_loss(GUESS.select(repeated), LABELS.select(repeated), loss)
    assert float(one) == pytest.approx(float(other), rel=1e-12)
    without = Loss([LossTerm(quantity=name, structure_weights=False)])
    plain, _ = weighted_loss(GUESS, weighted, without)
    assert float(plain) == pytest.approx(float(weighted_loss(GUESS, LABELS, loss)[0]), rel=1e-12)


def test_mass_weighted_terms() -> None:
    inverse = 1.0 / atomic_masses[np.concatenate(NUMBERS)]
    total, _ = weighted_loss(GUESS, LABELS, Loss([LossTerm(quantity="hvp", mass_weighted=True)]), batch=BATCH)
    each, begin = [], 0
    for i, n in enumerate(SIZES):
        weights = inverse[begin : begin + n] / inverse[begin : begin + n].mean()
        squares = differences("hvp", i).reshape(2, n, 3) ** 2
        each.append((squares * weights[None, :, None]).sum() / 2 / (9 * n * n))
        begin += n
    assert float(total) == pytest.approx(sum(each) / 3, rel=1e-12)
    with pytest.raises(MissingLabelError, match="weighted by masses needs the batch"):
        weighted_loss(GUESS, LABELS, Loss([LossTerm(quantity="hvp", mass_weighted=True)]))
    with pytest.raises(ConfigError, match="meant for vectors"):
        LossTerm(quantity="energy", mass_weighted=True)


@pytest.mark.parametrize("form", ["mse", "rmse", "mae", "huber"])
def test_gradients_of_batches_add_up(form: str) -> None:
    """Also those of a root, with the weights of `linear_weights`."""
    options = {"form": form, "delta": DELTA} if form == "huber" else {"form": form}
    loss = Loss([LossTerm(quantity="forces", weight=0.3, **options), LossTerm(quantity="energy", weight=2.0)])
    weights = loss.weights()
    assert GUESS.forces is not None
    forces = GUESS.forces.clone().requires_grad_(True)
    guess = GUESS.replace(forces=forces)
    total, values = weighted_loss(guess, LABELS, loss)
    (whole,) = torch.autograd.grad(total, forces)
    parts = [torch.tensor([0, 2]), torch.tensor([1])]
    counted = [loss.counts(LABELS.select(part), weights) for part in parts]
    counts = {name: sum(c[name] for c in counted) for name in weights}
    means = []
    for part in parts:
        labels, predicted = LABELS.select(part), guess.select(part)
        matched = {name: predicted[name] for name in ("energy", "forces")}
        means.append(loss.means(matched, loss.targets(labels, weights), loss.factors(labels, weights, counts)))  # type: ignore[arg-type]
    sums = {name: means[0][name] + means[1][name] for name in weights}
    for name, value in loss.values(sums).items():
        torch.testing.assert_close(value, values[name])
    linear = loss.linear_weights({name: float(value.detach()) for name, value in sums.items()}, weights)
    added = torch.zeros_like(whole)
    for mean in means:
        part_total = loss.total(mean, linear, linear=True)
        assert part_total is not None
        added += torch.autograd.grad(part_total, forces, retain_graph=True)[0]
    torch.testing.assert_close(added, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantity": "hessain"}, 'no loss term of .hessain.. Did you mean "hessian"'),
        ({"quantity": "probes"}, "no loss term of 'probes'"),
        ({"quantity": "forces", "form": "huber"}, "huber needs delta"),
        ({"quantity": "forces", "delta": 0.1}, "only this form has it"),
        ({"quantity": "forces", "weight": -1}, "expected 0 or more"),
        ({"quantity": "regularizer", "form": "mae"}, "it has no form"),
        ({"quantity": "forces", "form": "mean"}, "no form"),
    ],
)
def test_wrong_terms_get_a_reply(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossTerm(**options)  # type: ignore[arg-type]


def test_wrong_losses_get_a_reply() -> None:
    with pytest.raises(ConfigError, match="two loss terms are called 'forces'"):
        Loss([LossTerm(quantity="forces"), LossTerm(quantity="forces", form="mae")])
    with pytest.raises(ConfigError, match="all loss weights are zero"):
        Loss([LossTerm(quantity="forces", weight=0.0)])
    with pytest.raises(ConfigError, match="no loss term of 'hpv'"):
        weighted_loss(GUESS, LABELS, {"hpv": 1.0})


def test_short_forms_of_weights() -> None:
    assert LossWeights.model_validate("balance").by_name()["hvp"] == 1.0
    factors = LossWeights.model_validate({"balance": True, "hvp": 0.3})
    assert (factors.balance, factors.energy, factors.forces, factors.hvp) == (True, 1.0, 1.0, 0.3)
    length = LossWeights.model_validate({"length_scale": 0.5, "energy": 4.0})
    assert (length.energy, length.forces, length.hvp) == (4.0, 1.0, 0.25)
    assert LossWeights.model_validate(length.model_dump()) == length
    with pytest.raises(ConfigError, match="length_scale sets the weights"):
        LossWeights(length_scale=0.5, hvp=1.0)


def test_ramps_rise_from_zero_to_one() -> None:
    ramp = RampConfig(start=0.2, end=0.6, shape="linear")
    assert [ramp.factor(x) for x in (0.0, 0.2, 0.6, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert ramp.factor(0.4) == pytest.approx(0.5)


def test_a_root_of_zero_has_a_finite_gradient() -> None:
    assert LABELS.forces is not None
    forces = LABELS.forces.clone().requires_grad_(True)
    total, _ = weighted_loss(LABELS.replace(forces=forces), LABELS, Loss([LossTerm(quantity="forces", form="rmse")]))
    (slope,) = torch.autograd.grad(total, forces)
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-14)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("form", ["mse", "rmse", "mae"])
def test_structures_that_do_not_count_give_no_loss(form: str) -> None:
    labels = LABELS.replace(weight=torch.zeros(3, dtype=torch.float64))
    assert GUESS.forces is not None
    forces = GUESS.forces.clone().requires_grad_(True)
    total, _ = weighted_loss(GUESS.replace(forces=forces), labels, Loss([LossTerm(quantity="forces", form=form)]))
    (slope,) = torch.autograd.grad(total, forces)
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-14)
    assert torch.equal(slope, torch.zeros_like(slope))
