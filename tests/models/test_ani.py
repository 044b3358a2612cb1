"""ANI against its equations in plain loops, and against what an energy must keep."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hesse.curvature import evaluate
from hesse.errors import ConfigError, UnknownElementError
from hesse.models import Ani, AniConfig, build_model, load_model, save_model
from hesse.models.ani import aev_length
from hesse.models.ani.network import SmoothCelu
from hesse.structures import Request, Structure, collate
from oracles import atom, crystal, image_pairs, linear, molecule, molecules, rotation

Array = NDArray[np.float64]
ELEMENTS = (1, 6, 8)
SMALL: dict[str, Any] = {
    "radial_cutoff": 3.4,
    "angular_cutoff": 2.6,
    "radial_eta": 9.0,
    "radial_shifts": (0.9, 1.5, 2.1),
    "angular_eta": 5.0,
    "angular_shifts": (1.0, 1.7),
    "zeta": 6.5,
    "sections": (0.2, 1.3, 2.9),
    "hidden": (7, 5),
    "hidden_of": {"C": (6,)},
    "activation": "celu",
}
FUNCTIONS = ["smooth", "cosine", "exponential"]
every_function = pytest.mark.parametrize("cutoff_function", FUNCTIONS)


def ani(seed: int = 3, **options: Any) -> Ani:
    torch.manual_seed(seed)
    model = Ani(AniConfig(**{**SMALL, **options}), ELEMENTS).double()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero: let every term count
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.references.energies.copy_(torch.tensor([-1.5, 2.0, 0.25]))
    return model


# --- the equations, in loops -----------------------------------------------------------------------------------------


def fade(kind: str, r: float, cutoff: float) -> float:
    x = r / cutoff
    if kind == "smooth":
        return 1 - 35 * x**4 + 84 * x**5 - 70 * x**6 + 20 * x**7
    if kind == "cosine":
        return 0.5 * (np.cos(np.pi * x) + 1)
    return float(np.exp(1 - 1 / (1 - x * x)))


def slow_aevs(c: AniConfig, structure: Structure) -> Array:
    """The published equations, with arccos."""
    pairs = image_pairs(structure, c.radial_cutoff)
    kinds = [ELEMENTS.index(z) for z in structure.numbers]
    pair_index = {p: k for k, p in enumerate(itertools.combinations_with_replacement(range(len(ELEMENTS)), 2))}
    block = len(c.angular_shifts) * len(c.sections)
    start = len(ELEMENTS) * len(c.radial_shifts)
    result = np.zeros((len(structure), aev_length(c, len(ELEMENTS))))
    for i in range(len(structure)):
        neighbors_of_i = [(j, gap) for first, j, gap in pairs if first == i]
        for j, gap in neighbors_of_i:
            r = float(np.linalg.norm(gap))
            terms = 0.25 * np.exp(-c.radial_eta * (r - np.array(c.radial_shifts)) ** 2)
            at = kinds[j] * len(c.radial_shifts)
            result[i, at : at + len(terms)] += terms * fade(c.cutoff_function, r, c.radial_cutoff)
        inside = [(j, gap) for j, gap in neighbors_of_i if np.linalg.norm(gap) < c.angular_cutoff]
        for (j, a), (k, b) in itertools.combinations(inside, 2):
            ra, rb = float(np.linalg.norm(a)), float(np.linalg.norm(b))
            theta = np.arccos(0.95 * a @ b / (ra * rb))
            angular = 2.0 ** (1 - c.zeta) * (1 + np.cos(theta - np.array(c.sections))) ** c.zeta
            bell = np.exp(-c.angular_eta * ((ra + rb) / 2 - np.array(c.angular_shifts)) ** 2)
            weight = fade(c.cutoff_function, ra, c.angular_cutoff) * fade(c.cutoff_function, rb, c.angular_cutoff)
            pair = pair_index[min(kinds[j], kinds[k]), max(kinds[j], kinds[k])]
            at = start + pair * block
            result[i, at : at + block] += weight * np.outer(bell, angular).ravel()
    return result


STRUCTURES = [*molecules([9, 6, 2]), atom(8), linear(4), crystal(0), crystal(1, atoms=1)]


@every_function
def test_aevs_are_those_of_the_equations(cutoff_function: str) -> None:
    model = ani(cutoff_function=cutoff_function)
    rows = model.aevs(collate(STRUCTURES, model.cutoff)).split([len(s) for s in STRUCTURES])
    for structure, row in zip(STRUCTURES, rows, strict=True):
        expected = slow_aevs(model.config, structure)
        np.testing.assert_allclose(row.numpy(), expected, rtol=0, atol=1e-12, err_msg=structure.id)


def test_energies_are_networks_of_aevs_plus_reference_energies() -> None:
    model = ani()
    batch = collate(STRUCTURES, model.cutoff)
    labels = evaluate(model, batch, Request(atomic_energies=True))
    assert labels.atomic_energies is not None
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    for z, aev, energy in zip(batch.numbers, model.aevs(batch).numpy(), labels.atomic_energies, strict=True):
        symbol = {1: "H", 6: "C", 8: "O"}[int(z)]
        x = aev
        layers = len(model.config.hidden_of.get(symbol, model.config.hidden))
        for k in range(layers):
            x = x @ weights[f"networks.{symbol}.{2 * k}.weight"].T + weights[f"networks.{symbol}.{2 * k}.bias"]
            x = np.maximum(x, 0) + np.minimum(0.1 * np.expm1(x / 0.1), 0)
        last = f"networks.{symbol}.{2 * layers}"
        total = float(x @ weights[f"{last}.weight"][0] + weights[f"{last}.bias"][0])
        assert float(energy) == pytest.approx(total + {1: -1.5, 6: 2.0, 8: 0.25}[int(z)], abs=1e-11)


def test_defaults_are_the_published_constants() -> None:
    c = AniConfig()
    assert (c.cutoff_function, c.activation) == ("smooth", "gelu")  # the two exceptions: smooth ones
    assert c.radial_shifts[-1] == pytest.approx(4.93125)
    assert c.angular_shifts == pytest.approx((0.9, 1.55, 2.2, 2.85))
    assert c.sections == pytest.approx([np.pi / 16 * (2 * k + 1) for k in range(8)])
    assert aev_length(c, 4) == 384


# --- what an energy must keep ----------------------------------------------------------------------------------------


def test_invariance_under_motion_mirror_and_order() -> None:
    model, structure = ani(), molecule(8, seed=4)
    rng = np.random.default_rng(0)
    variants = [structure]
    for k in range(3):
        matrix = rotation(k) * (-1) ** k
        variants.append(structure.with_positions(structure.positions @ matrix.T + 10 * rng.normal(size=3)))
    order = rng.permutation(8)
    variants.append(Structure(structure.numbers[order], structure.positions[order]))
    labels = evaluate(model, collate(variants, model.cutoff), Request(atomic_energies=True))
    assert labels.atomic_energies is not None
    per_atom = labels.atomic_energies.split(8)
    for moved in per_atom[1:4]:
        torch.testing.assert_close(moved, per_atom[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(per_atom[4], per_atom[0][torch.from_numpy(order)], rtol=0, atol=1e-11)


def test_a_batch_equals_its_structures_one_by_one() -> None:
    model = ani()
    request = Request(forces=True, hessian=True)
    together = evaluate(model, collate(STRUCTURES, model.cutoff), request)
    for i, structure in enumerate(STRUCTURES):
        alone = evaluate(model, collate([structure], model.cutoff), request)
        assert together.energy is not None
        assert together.forces is not None
        torch.testing.assert_close(together.energy[i : i + 1], alone.energy, rtol=0, atol=1e-11)
        torch.testing.assert_close(together.forces[together.atom_slice(i)], alone.forces, rtol=0, atol=1e-11)
        torch.testing.assert_close(together.hessian_of(i), alone.hessian_of(0), rtol=0, atol=1e-10)


def test_neighbors_beyond_the_cutoff_change_nothing() -> None:
    model = ani()
    request = Request(forces=True, hessian=True)
    exact = evaluate(model, collate(STRUCTURES, model.cutoff), request)
    other = evaluate(model, collate(STRUCTURES, model.cutoff + 2.0), request)
    for name in ("energy", "forces", "hessian"):
        torch.testing.assert_close(getattr(other, name), getattr(exact, name), rtol=1e-11, atol=1e-11)


def test_a_crystal_equals_its_supercell() -> None:
    model, unit = ani(), crystal(2)
    shifts = np.array([(a, b, 0) for a in range(2) for b in range(2)]) @ unit.cell
    cell = unit.cell * np.array([[2.0], [2.0], [1.0]])
    large = Structure(
        np.tile(unit.numbers, 4), np.concatenate([unit.positions + s for s in shifts]), cell=cell, pbc=(True,) * 3
    )
    request = Request(forces=True, stress=True, atomic_energies=True)
    labels = evaluate(model, collate([unit, large], model.cutoff), request)
    for name in ("atomic_energies", "forces"):
        value = getattr(labels, name)
        repeated = value[:3].repeat(4, *([1] * (value.dim() - 1)))
        torch.testing.assert_close(value[3:], repeated, rtol=0, atol=1e-10)
    assert labels.stress is not None
    torch.testing.assert_close(labels.stress[1], labels.stress[0], rtol=0, atol=1e-11)


def test_forces_and_products_equal_finite_differences() -> None:
    """Central differences of energies and of forces along a direction."""
    model, structure = ani(activation="gelu"), molecule(9, seed=5)
    direction = np.random.default_rng(1).normal(size=(9, 3))
    probes = torch.from_numpy(direction)[None]
    labels = evaluate(model, collate([structure], model.cutoff), Request(forces=True, probes=probes))
    step = 1e-4
    ends = [structure.with_positions(structure.positions + sign * step * direction) for sign in (1, -1)]
    ahead, behind = (evaluate(model, collate([s], model.cutoff), Request(forces=True)) for s in ends)
    slope = (ahead.energy - behind.energy) / (2 * step)  # type: ignore[operator]
    assert float(slope) == pytest.approx(-float((labels.forces * probes[0]).sum()), rel=1e-6)  # type: ignore[operator]
    curved = -(ahead.forces - behind.forces) / (2 * step)  # type: ignore[operator]
    torch.testing.assert_close(curved, labels.hvp[0], rtol=1e-5, atol=1e-5)  # type: ignore[index]


def test_single_and_double_precision_agree() -> None:
    model = ani()
    batch = collate(STRUCTURES, model.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    wide = evaluate(model, batch, Request(forces=True, probes=probes, hessian=True))
    narrow = evaluate(
        model.float(), batch.to(dtype=torch.float32), Request(forces=True, probes=probes.float(), hessian=True)
    )
    assert narrow.energy is not None
    assert narrow.energy.dtype == torch.float64
    for name in ("energy", "forces", "hvp", "hessian"):
        a, b = getattr(narrow, name).double(), getattr(wide, name)
        assert float((a - b).abs().max()) < 3e-5 * float(b.abs().max()), name


# --- training on curvature: third derivatives -------------------------------------------------------------------------

AWKWARD = {
    "isolated atoms": [atom(1), atom(8)],
    "a pair has no angles": [Structure([1, 8], [[0.0, 0, 0], [1.0, 0, 0]])],
    "linear along an axis": [linear(4, axis=(0.0, 0.0, 1.0))],
    "linear askew beside a crowd": [linear(3), *molecules([12])],
    "pair at the angular cutoff": [Structure([6, 1, 8], [[0.0, 0, 0], [2.6, 0, 0], [0, 1.0, 0]])],
    "pair at the radial cutoff": [
        Structure([6, 1], [[0.0, 0, 0], [r, 0, 0]]) for r in (3.4, np.nextafter(3.4, 0), 3.4 - 1e-9, 3.4 + 1e-9)
    ],
    "square planar": [Structure([6, 1, 1, 1, 1], [[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])],
    "a crystal beside a molecule": [crystal(0), *molecules([3]), atom(1)],
    "nearly on top": [Structure([6, 1, 8], [[0.0, 0, 0], [0.05, 0, 0], [1.1, 0, 0]])],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", AWKWARD)
@every_function
def test_third_derivatives_are_finite(name: str, cutoff_function: str, dtype: torch.dtype) -> None:
    model = ani(cutoff_function=cutoff_function).to(dtype)
    batch = collate(AWKWARD[name], model.cutoff, dtype=dtype)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=dtype)
    labels = evaluate(model, batch, Request(forces=True, probes=probes, hessian=True), create_graph=True)
    for what in ("energy", "forces", "hvp", "hessian"):
        assert torch.isfinite(getattr(labels, what)).all(), what
    (labels.hvp.square().sum() + labels.hessian.square().sum() + labels.forces.square().sum()).backward()  # type: ignore[union-attr]
    for what, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), what


@pytest.mark.parametrize("activation", ["gelu", "smooth-celu"])
def test_parameter_gradients_of_a_curvature_loss_equal_finite_differences(activation: str) -> None:
    """Third derivatives (two in positions, one in parameters) against central differences in the parameters."""
    model = ani(activation=activation)
    batch = collate([*molecules([6, 4]), linear(3)], model.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        labels = evaluate(model, batch, Request(probes=probes), create_graph=True)
        return labels.hvp.square().sum()  # type: ignore[union-attr]

    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), parameters, materialize_grads=True)
    for direction_seed in range(3):
        torch.manual_seed(direction_seed)
        directions = [torch.randn_like(p) for p in parameters]
        predicted = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.add_(sign * 1e-5 * d)
            values.append(float(loss().detach()))
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.sub_(sign * 1e-5 * d)
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(predicted, rel=1e-5)


def jumps(model: Ani, reach: float, gap: float) -> list[float]:
    """By how much energy, forces and Hessian differ between an atom just inside a cutoff and one just outside."""
    frames = []
    for side in (-1, 1):
        structure = Structure([6, 1, 8], [[0, 0, 0], [0.9, 0.5, 0], [0.0, 0.0, reach + side * gap]])
        labels = evaluate(model, collate([structure], model.cutoff), Request(forces=True, hessian=True))
        frames.append([labels.energy, labels.forces, labels.hessian])
    return [float((a - b).abs().max()) for a, b in zip(*frames, strict=True)]  # type: ignore[operator]


def test_energy_forces_and_hessian_are_continuous_across_the_radial_cutoff() -> None:
    """Beyond it an atom is alone; within, the smooth cutoff leaves d⁴ in the energy, d³ in forces, d² in the Hessian.
    Of the published cosine a jump in the Hessian stays."""
    gaps = np.array([0.02, 0.01, 0.005])
    options: dict[str, Any] = {"activation": "gelu", "radial_shifts": (2.8, 3.1, 3.4)}
    smooth, cosine = ani(**options), ani(**options, cutoff_function="cosine")
    table = np.array([jumps(smooth, 3.4, gap) for gap in gaps])
    for column, order in zip(table.T, (4, 3, 2), strict=True):
        slope, _ = np.polyfit(np.log(gaps), np.log(column), 1)
        assert slope == pytest.approx(order, abs=0.4)
    published = np.array([jumps(cosine, 3.4, gap) for gap in gaps])
    assert published[-1, 2] > 0.3 * published[0, 2]
    assert published[-1, 2] > 1e-4


def test_hessians_are_smooth_across_the_angular_cutoff_in_both_precisions() -> None:
    """An atom goes through the angular cutoff well inside the radial one: no step of the Hessian stands out, and
    float32, whose rounding errors exceed the cutoff function there, follows."""
    model = ani(activation="gelu", angular_shifts=(2.0, 2.5))
    distances = 2.6 + np.linspace(-0.02, 0.02, 41)
    path = [Structure([6, 1, 8], [[0, 0, 0], [0.9, 0.5, 0], [0.0, 0.3, r]]) for r in np.sqrt(distances**2 - 0.09)]
    request = Request(hessian=True)
    batch = collate(path, model.cutoff)
    wide = evaluate(model, batch, request).hessian.reshape(41, -1)  # type: ignore[union-attr]
    steps = wide.diff(dim=0).abs().amax(1)
    assert float(steps.max() / steps.median()) < 3.0
    narrow = evaluate(model.float(), batch.to(dtype=torch.float32), request).hessian.reshape(41, -1)  # type: ignore[union-attr]
    assert float((narrow - wide).abs().max()) < 1e-4 * float(wide.abs().max())


# --- a smooth function in place of the celu ---------------------------------------------------------------------------


def test_smooth_celu_has_the_limits_and_the_bell_of_the_celu() -> None:
    alpha = 0.1
    x = torch.linspace(-3.0, 3.0, 60_001, dtype=torch.float64, requires_grad=True)
    y = SmoothCelu(alpha)(x)
    assert float((y - nn.CELU(alpha)(x)).detach().abs().max()) < 0.1 * alpha
    assert float(y[0].detach()) == pytest.approx(-alpha, abs=1e-12)
    assert float(y[-1].detach()) == pytest.approx(3.0, abs=1e-12)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (bell,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(bell.sum(), x)
    points = x.detach()
    weight = bell.detach() * (points[1] - points[0])
    mean = (weight * points).sum()
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-8)  # 1/α exp(x/α) below zero has the same three moments
    assert float(mean) == pytest.approx(-alpha, abs=1e-8)
    assert float((weight * (points - mean).square()).sum()) == pytest.approx(alpha**2, rel=1e-6)
    assert torch.isfinite(third).all()
    assert float(third.diff().abs().max()) < 0.2  # a jump would stay as large on a finer grid


def test_other_functions_keep_the_weights() -> None:
    model = ani(cutoff_function="cosine")
    smooth = model.with_functions(activation="smooth-celu")
    assert smooth.config.activation == "smooth-celu"
    assert smooth.config.cutoff_function == "cosine"
    for name, value in model.state_dict().items():
        torch.testing.assert_close(smooth.state_dict()[name], value, rtol=0, atol=0)
    batch = collate(STRUCTURES, model.cutoff)
    difference = (smooth(batch) - model(batch)).detach().abs().max()
    assert 0.0 < float(difference) < 0.1
    with pytest.raises(ConfigError, match="activation"):
        model.with_functions(activation="relu")


# --- files, elements, refusals ---------------------------------------------------------------------------------------


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    model = ani(cutoff_function="cosine").float()
    save_model(tmp_path / "a.hesse", model)
    again = load_model(tmp_path / "a.hesse")
    assert isinstance(again, Ani)
    assert again.config == model.config
    batch = collate(STRUCTURES, model.cutoff, dtype=torch.float32)
    torch.testing.assert_close(again(batch), model(batch), rtol=0, atol=0)


def test_any_elements_in_any_order() -> None:
    """Elements are ordered by atomic number, and references follow them."""
    model = build_model(AniConfig(), (17, 1, 79), torch.tensor([-3.0, -1.0, -2.0], dtype=torch.float64))
    assert isinstance(model, Ani)
    assert model.elements == (1, 17, 79)
    assert list(model.networks) == ["H", "Cl", "Au"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    labels = evaluate(model, collate([Structure([79, 17, 1], 20.0 * np.eye(3))], model.cutoff), Request())
    assert labels.energy is not None
    assert float(labels.energy) == pytest.approx(-6.0)
    model.shift_reference_energies({79: 0.5})
    assert model.references.energies.tolist() == [-1.0, -3.0, -1.5]


def test_widths_of_single_elements() -> None:
    shapes = {
        symbol: [layer.out_features for layer in network.children() if isinstance(layer, nn.Linear)]
        for symbol, network in ani().networks.items()
    }
    assert shapes == {"H": [7, 5, 1], "C": [6, 1], "O": [7, 5, 1]}


def test_the_error_names_an_unknown_element() -> None:
    structure = Structure([1, 9], [[0.0, 0, 0], [0.95, 0, 0]], id="fluoride-7")
    with pytest.raises(UnknownElementError, match=r'structure "fluoride-7" holds F; Ani knows H, C, O only'):
        evaluate(ani(), collate([structure], 3.4), Request())


@pytest.mark.parametrize("elements", [(), (1, 1), (0,)])
def test_elements_must_be_unique(elements: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        Ani(AniConfig(), elements)


@pytest.mark.parametrize(
    "wrong",
    [
        {"radial_cutoff": 0.0},
        {"angular_cutoff": 6.0},
        {"radial_cutoff": float("nan")},
        {"zeta": 0.5},
        {"sections": ()},
        {"sections": (3.5,)},
        {"radial_shifts": (-1.0,)},
        {"hidden": (64, 0)},
        {"hidden_of": {"Xx": (4,)}},
        {"hidden_of": {"X": (4,)}},
        {"activation": "relu"},
        {"cutoff_function": "hard"},
        {"eta": 3.0},
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AniConfig(**wrong)
