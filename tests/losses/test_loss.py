"""The loss against explicit sums, with all combinations of present and missing labels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from hesse.curvature import evaluate
from hesse.errors import ConfigError, MissingLabelError
from hesse.losses import LossWeights, default_loss, per_structure_loss, weighted_loss
from hesse.structures import Batch, Properties, Request, Structure, collate, from_ase, to_ase
from oracles import Morse, labeled, molecules

LABELS = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress")


def predictions(sizes: list[int], *, probes: int = 2, seed: int = 0) -> Properties:
    """Random values of every kind, as a potential would give them: no masks."""
    rng = np.random.default_rng(seed)
    s, a = len(sizes), sum(sizes)

    def values(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape))

    return Properties(
        n_atoms=torch.tensor(sizes),
        energy=values(s),
        forces=values(a, 3),
        probes=values(probes, a, 3),
        hvp=values(probes, a, 3),
        hessian=values(sum(9 * n * n for n in sizes)),
        atomic_energies=values(a),
        stress=values(s, 3, 3),
        regularizer=values(s).abs(),
    )


def references(held: list[set[str]], sizes: list[int], *, pairs: list[int], seed: int = 1) -> Properties:
    """Labels of which structure i holds `held[i]`, and `pairs[i]` pairs if it holds "hvp"."""
    rng = np.random.default_rng(seed)
    parts = []
    for names, n, k in zip(held, sizes, pairs, strict=True):
        every = {
            "energy": rng.normal(),
            "forces": rng.normal(size=(n, 3)),
            "hessian": rng.normal(size=(n, 3, n, 3)),
            "atomic_energies": rng.normal(size=n),
            "stress": rng.normal(size=(3, 3)),
        }
        chosen = {name: value for name, value in every.items() if name in names}
        if "hvp" in names:
            chosen |= {"probes": rng.normal(size=(k, n, 3)), "hvp": rng.normal(size=(k, n, 3))}
        parts.append(Properties.single(n, **chosen))
    return Properties.concatenate(parts)


def crystals(sizes: list[int]) -> Batch:
    """Structures of these sizes in cubes of 6, 7, 8, ... Å."""
    rng = np.random.default_rng(4)
    structures = [
        Structure(np.ones(n, dtype=int), rng.uniform(0, 6 + i, (n, 3)), cell=np.eye(3) * (6 + i), pbc=True)
        for i, n in enumerate(sizes)
    ]
    return collate(structures, 1.0)


def by_hand(prediction: Properties, held: list[set[str]], reference: Properties, pairs: list[int]) -> dict[str, float]:
    """Every term with loops over structures; the mean over those that hold the label."""
    sums: dict[str, list[float]] = {name: [] for name in LABELS}
    begin = block = offset = 0
    for i, n in enumerate(reference.n_atoms.tolist()):
        rows = slice(begin, begin + n)

        def gap(name: str, where: object, prediction: Properties = prediction) -> float:
            return float((getattr(prediction, name)[where] - getattr(reference, name)[where]).square().sum())

        if "energy" in held[i]:
            sums["energy"].append(gap("energy", i) / math.sqrt(n))
        if "forces" in held[i]:
            sums["forces"].append(gap("forces", rows) / (3 * n))
        if "hvp" in held[i] and pairs[i]:
            sums["hvp"].append(gap("hvp", (slice(0, pairs[i]), rows)) / pairs[i] / (9 * n * n))
        if "atomic_energies" in held[i]:
            sums["atomic_energies"].append(gap("atomic_energies", rows) / n)
        if "stress" in held[i]:
            sums["stress"].append(gap("stress", i) * ((6 + i) ** 3 / n) ** 2 / 9)
        size = 9 * n * n
        assert prediction.hessian is not None
        if "hessian" in held[i]:
            assert reference.hessian is not None
            error = prediction.hessian[block : block + size] - reference.hessian[offset : offset + size]
            sums["hessian"].append(float(error.square().sum()) / size)
            offset += size
        begin, block = begin + n, block + size
    return {name: sum(values) / len(values) for name, values in sums.items() if values}


ALL = set(LABELS)
SIZES = [3, 1, 5, 2]
UNITY = dict.fromkeys(LABELS, 1.0)


@pytest.mark.parametrize(
    "held",
    [
        [ALL] * 4,
        [{"energy", "forces"}, ALL, {"energy", "forces"}, {"hvp"}],
        [{"energy"}, {"hessian"}, {"forces"}, {"hvp", "stress"}],
        [ALL - {"hessian"}, ALL - {"energy"}, ALL - {"hvp"}, ALL - {"stress", "atomic_energies"}],
        [set(), {"energy", "hessian"}, set(), {"energy", "hessian"}],
    ],
    ids=["all", "few with curvature", "one each", "one lacks one", "two bare"],
)
@pytest.mark.parametrize("pairs", [[2, 2, 2, 2], [2, 1, 2, 1], [1, 2, 1, 2]], ids=str)
def test_terms_and_total_are_those_computed_by_hand(held: list[set[str]], pairs: list[int]) -> None:
    weights = {"energy": 1.0, "forces": 0.3, "hvp": 0.09, "hessian": 0.7, "atomic_energies": 2.0, "stress": 5.0}
    reference = references(held, SIZES, pairs=pairs)
    prediction = predictions(SIZES, probes=0 if reference.probes is None else reference.probes.shape[0])
    expected = by_hand(prediction, held, reference, pairs)
    total, terms = weighted_loss(prediction, reference, weights, batch=crystals(SIZES))
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-12)
    assert total.item() == pytest.approx(sum(weights[name] * value for name, value in expected.items()), rel=1e-12)


def test_a_case_for_mental_arithmetic() -> None:
    """Two atoms, every error one: energy 1/√2; forces 6/6; two pairs of 6/36; Hessian 36/36."""
    ones = torch.ones
    prediction = Properties(
        n_atoms=torch.tensor([2]),
        energy=ones(1),
        forces=ones(2, 3),
        probes=ones(2, 2, 3),
        hvp=ones(2, 2, 3),
        hessian=ones(36),
    )
    zero = prediction.map_tensors(torch.zeros_like)
    total, terms = weighted_loss(prediction, zero, LossWeights(energy=1, forces=10, hvp=100, hessian=1000))
    assert {n: v.item() for n, v in terms.items()} == pytest.approx(
        {"energy": 2**-0.5, "forces": 1.0, "hvp": 1 / 6, "hessian": 1.0}
    )
    assert total.item() == pytest.approx(2**-0.5 + 10 + 100 / 6 + 1000)


@pytest.mark.parametrize("name", ["energy", "forces", "hvp", "hessian", "atomic_energies", "stress"])
def test_nan_of_missing_labels_reaches_neither_value_nor_gradient(name: str) -> None:
    present = [{name}, set(), {name}, set()]
    reference = references(present, SIZES, pairs=[2, 0, 1, 0])
    if name != "hessian":  # missing Hessians have no elements
        assert torch.isnan(getattr(reference, name)).any()
    prediction = predictions(SIZES, probes=2 if name == "hvp" else 0)
    value = getattr(prediction, name).requires_grad_(True)
    batch = crystals(SIZES) if name == "stress" else None
    total, _ = weighted_loss(prediction, reference, {name: 1.0}, batch=batch)
    (derivative,) = torch.autograd.grad(total, value)
    assert torch.isfinite(total)
    assert torch.isfinite(derivative).all()
    one_by_one = per_structure_loss(prediction, reference, name, batch)
    assert one_by_one.shape == (4,)
    assert torch.isfinite(one_by_one).all()
    assert one_by_one[[1, 3]].tolist() == [0.0, 0.0]
    assert (one_by_one[[0, 2]] > 0).all()
    wrong = {"hvp": lambda g: g[:, 3:4], "forces": lambda g: g[3:4], "atomic_energies": lambda g: g[3:4]}
    absent = wrong.get(name, lambda g: g[9:18] if name == "hessian" and len(g) > 18 else g[1])(derivative)
    if name == "hessian":
        absent = derivative[81:90]  # the second structure's block in the predictions
    assert torch.equal(absent, torch.zeros_like(absent))


def test_nan_in_predictions_is_not_hidden() -> None:
    reference = references([{"energy", "forces"}] * 2, [2, 3], pairs=[0, 0])
    prediction = predictions([2, 3], probes=0)
    assert prediction.forces is not None
    prediction.forces[3, 1] = torch.nan
    assert torch.isnan(weighted_loss(prediction, reference, UNITY)[0])


def test_a_mixed_batch_is_the_sum_of_its_separate_computations() -> None:
    """Frames with energies and forces only, and frames with curvature, in one batch: every term is the mean over its
    own holders, so terms of the parts combine by their numbers of holders, and so do gradients."""
    model, structures = Morse(depth=2.0), molecules([4, 6, 3, 5], seed=6)
    truth = Morse()
    plain = labeled(truth, structures[:3], probes=0)
    curved = labeled(truth, structures[3:], probes=2, hessian=True)
    mixed = Properties.concatenate([plain.labels, curved.labels])
    batch = collate(structures, 6.0)
    assert mixed.probes is not None
    request = Request(forces=True, probes=torch.nan_to_num(mixed.probes), hessian=True)
    _, terms = weighted_loss(evaluate(model, batch, request), mixed, UNITY)

    def alone(part: Properties, members: list[int]) -> Mapping[str, torch.Tensor]:
        subset = Request(forces=True, probes=part.probes, hessian=part.hessian is not None)
        chosen = [structures[i] for i in members]
        return weighted_loss(evaluate(model, collate(chosen, 6.0), subset), part, UNITY)[1]

    first, second = alone(plain.labels, [0, 1, 2]), alone(curved.labels, [3])
    assert set(first) == {"energy", "forces"}
    for name in ("energy", "forces"):
        torch.testing.assert_close(terms[name], (3 * first[name] + second[name]) / 4)
    for name in ("hvp", "hessian"):
        torch.testing.assert_close(terms[name], second[name])


@pytest.mark.parametrize("name", ["hvp", "hessian", "stress", "atomic_energies", "forces", "energy"])
def test_batches_without_a_label_contribute_nothing(name: str) -> None:
    """In data with few curvature labels some batches have none; curvature is then not predicted."""
    full = references([{name, "energy", "forces"}, {"energy", "forces"}], [2, 3], pairs=[1, 0])
    part = full.select(torch.tensor([1]))
    if name in ("energy", "forces"):
        part = references([{name}, {"stress"}], [2, 3], pairs=[0, 0]).select(torch.tensor([1]))
    present = [n for n in LABELS if n != name and bool(part.mask(n).any())]
    every = predictions([3], probes=0)
    prediction = Properties(n_atoms=every.n_atoms, **{n: getattr(every, n) for n in present})
    total, terms = weighted_loss(prediction, part, UNITY, batch=crystals([3]))
    assert terms.get(name, torch.tensor(0.0)) == 0.0
    assert total.item() == pytest.approx(sum(float(terms[n]) for n in present), rel=1e-12)


def test_full_hessian_and_hvp_losses_share_one_normalization() -> None:
    """All 3N scaled columns as probes: the HVP term is the Hessian term, exactly."""
    n = 4
    rng = np.random.default_rng(0)
    error = rng.normal(size=(n, 3, n, 3))
    columns = np.sqrt(3 * n) * np.eye(3 * n).reshape(3 * n, n, 3)
    product = np.einsum("iajb,kjb->kia", error, columns)
    truth = Properties.single(n, hessian=np.zeros_like(error), probes=columns, hvp=np.zeros_like(product))
    guess = Properties.single(n, hessian=error, probes=columns, hvp=product)
    _, terms = weighted_loss(guess, truth, {"hvp": 1.0, "hessian": 1.0})
    torch.testing.assert_close(terms["hvp"], terms["hessian"], rtol=1e-13, atol=0)


def test_stress_counts_as_the_virial_per_atom() -> None:
    """The same for a cell and its supercell, and the derivative of the energy per atom with respect to strain."""
    potential = Morse(depth=2.0)
    cell = from_ase(bulk("Cu", cubic=True) * (2, 2, 2))
    cell = cell.with_positions(cell.positions + np.random.default_rng(0).normal(0, 0.05, (32, 3)))
    large = from_ase(to_ase(cell) * (2, 1, 1))
    values = []
    for structure in (cell, large):
        batch = collate([structure], potential.cutoff)
        predicted = evaluate(potential, batch, Request(stress=True))
        assert predicted.stress is not None
        labels = predicted.replace(stress=torch.zeros_like(predicted.stress))
        values.append(float(weighted_loss(predicted, labels, {"stress": 1.0}, batch=batch)[0]))
    assert values[0] == pytest.approx(values[1], rel=1e-8)
    strained, step = [], 1e-4
    for sign in (1, -1):
        atoms = to_ase(cell)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + sign * step * np.diag([1.0, 0, 0])), scale_atoms=True)
        energy = evaluate(potential, collate([from_ase(atoms)], potential.cutoff), Request()).energy
        assert energy is not None
        strained.append(float(energy) / len(cell))
    batch = collate([cell], potential.cutoff)
    predicted = evaluate(potential, batch, Request(stress=True))
    assert predicted.stress is not None
    only_xx = torch.zeros_like(predicted.stress)
    only_xx[0, 0, 0] = predicted.stress[0, 0, 0]
    value, _ = weighted_loss(
        predicted.replace(stress=only_xx), predicted.replace(stress=0 * only_xx), {"stress": 1.0}, batch=batch
    )
    assert math.sqrt(9 * float(value)) == pytest.approx(abs(strained[0] - strained[1]) / (2 * step), rel=1e-6)


def test_stress_needs_the_batch() -> None:
    reference = references([{"stress"}], [2], pairs=[0])
    with pytest.raises(MissingLabelError, match="loss term of stress needs the batch"):
        weighted_loss(predictions([2], probes=0), reference, {"stress": 1.0})


def test_missing_predictions_raise() -> None:
    reference = references([{"energy", "forces"}], [2], pairs=[0])
    prediction = Properties(n_atoms=torch.tensor([2]), energy=torch.zeros(1))
    with pytest.raises(MissingLabelError, match="the loss of forces needs it"):
        weighted_loss(prediction, reference, UNITY)


def test_terms_of_weight_zero_are_not_computed_and_the_regularizer_counts() -> None:
    reference = references([{"energy", "forces"}] * 2, [2, 3], pairs=[0, 0])
    prediction = predictions([2, 3], probes=0)
    _, terms = weighted_loss(prediction, reference, LossWeights(energy=1, forces=0, hvp=1, regularizer=2))
    assert set(terms) == {"energy", "regularizer"}
    total, _ = weighted_loss(prediction, reference, LossWeights(energy=1, forces=0, hvp=0, regularizer=2))
    assert prediction.regularizer is not None
    assert total.item() == pytest.approx(terms["energy"].item() + 2 * prediction.regularizer.mean().item())


def test_single_precision_predictions_meet_double_precision_energies() -> None:
    """Total energies of 10⁴ eV differ by 10⁻⁴: lost in float32, kept in float64."""
    reference = Properties.single(2, energy=-12345.6789, forces=np.zeros((2, 3))).to(dtype=torch.float32)
    prediction = Properties(
        n_atoms=torch.tensor([2]),
        energy=torch.tensor([-12345.6788], dtype=torch.float64),
        forces=torch.full((2, 3), 1e-3),
    )
    total, terms = weighted_loss(prediction, reference, {"energy": 1.0, "forces": 1.0})
    assert terms["energy"].item() == pytest.approx(1e-8 / math.sqrt(2), rel=1e-4)
    assert total.dtype == torch.float64


@given(length=st.floats(0.05, 3.0), energy=st.floats(0.1, 100.0))
def test_weights_from_one_length_scale(length: float, energy: float) -> None:
    weights = LossWeights.from_length_scale(length, energy=energy)
    assert weights.forces / weights.energy == pytest.approx(length**2)
    assert weights.hvp / weights.forces == pytest.approx(length**2)
    assert weights.active() == ("energy", "forces", "hvp")


def test_published_weights_correspond_to_one_length_scale() -> None:
    published = LossWeights.from_length_scale(math.sqrt(0.3))
    assert (published.energy, published.forces, published.hvp) == pytest.approx((1.0, 0.3, 0.09))


@pytest.mark.parametrize("wrong", [{"energy": -1.0}, {"hvp": float("inf")}, {"forces": float("nan")}, {"hessain": 1.0}])
def test_invalid_weights_raise(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LossWeights(**wrong)


def test_losses_of_microbatches_add_up() -> None:
    """With the numbers of labeled structures summed over microbatches, for any missing labels."""
    sizes = [3, 4, 2, 5, 3, 2]
    present = [
        {"energy", "forces", "hvp"}, {"energy"}, {"forces", "hvp"}, {"hvp", "hessian"}, {"atomic_energies"}, {"energy"}
    ]  # fmt: skip
    reference = references(present, sizes, pairs=[2, 0, 1, 2, 0, 0])
    prediction = predictions(sizes)
    full, terms = weighted_loss(prediction, reference, UNITY)
    parts = [torch.tensor(p) for p in ([0, 3], [1], [2, 4, 5])]
    counted = [default_loss().counts(reference.select(part), UNITY) for part in parts]
    counts = {name: torch.stack([c[name] for c in counted]).sum() for name in counted[0]}
    each = [weighted_loss(prediction.select(part), reference.select(part), UNITY, counts) for part in parts]
    assert float(sum(total for total, _ in each)) == pytest.approx(float(full), rel=1e-12)
    for name, value in terms.items():
        assert float(sum(t.get(name, 0.0) for _, t in each)) == pytest.approx(float(value), rel=1e-12), name
