"""HesseNet against its equations in plain loops, and against the invariances of an energy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hesse.curvature import evaluate
from hesse.errors import ConfigError, UnknownElementError
from hesse.models import HesseNet, HesseNetConfig, load_model, save_model
from hesse.structures import Batch, Request, Structure, collate
from oracles import atom, crystal, image_pairs, linear, molecule, molecules, rotation

Array = NDArray[np.float64]
ELEMENTS = (1, 6, 8)
CUTOFF = 3.4
SIZES = {"features": 6, "channels": 4, "radial": 3, "cutoff": CUTOFF}
SHAPES: tuple[dict[str, Any], ...] = ({"l_max": 1}, {"l_max": 2}, {"l_max": 2, "layers": 3}, {"l_max": 2, "layers": 1})
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()))


def network(seed: int = 3, **options: Any) -> HesseNet:
    torch.manual_seed(seed)
    model = HesseNet(HesseNetConfig(**{**SIZES, **options}), ELEMENTS).double()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start small: let every term count
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.references.energies.copy_(torch.tensor([-1.5, 2.0, 0.25]))
    return model


# --- the equations, in loops -----------------------------------------------------------------------------------------


def soft(tensor: Array) -> Array:
    """`t/(1 + |t|²)^¼` per feature (last axis); |t|² of a matrix is half its Frobenius norm squared."""
    axes = tuple(range(tensor.ndim - 1))
    squared = (tensor**2).sum(axes) / (2.0 if tensor.ndim == 3 else 1.0)
    return tensor * (1.0 + squared) ** -0.25


def slow_energies(model: HesseNet, structure: Structure) -> Array:
    """Atomic energies from the equations with the weights of `model`: Cartesian vectors and 3 x 3 matrices in loops."""
    w = {name: value.numpy() for name, value in model.state_dict().items()}
    c, n = model.config, len(structure)
    pairs = image_pairs(structure, c.cutoff)
    scalars = np.array([[float(z == e) for e in ELEMENTS] for z in structure.numbers])
    vectors: Array | None = None
    for layer in range(c.layers):
        p = f"layers.{layer}."
        order = c.l_max if layer == 0 else 1
        if layer == 0:
            sent, sent_vectors = scalars, np.zeros((n, 3, 0))
        else:
            assert vectors is not None
            sent = scalars @ w[p + "send_scalars.weight"].T
            sent_vectors = vectors @ w[p + "send_vectors.weight"].T
        channels, kinds = sent.shape[1], sent_vectors.shape[2]
        new_scalars = np.zeros((n, c.features))
        new_vectors = np.zeros((n, 3, c.features))
        for i in range(n):
            zero = np.zeros((c.radial, channels + kinds))
            vector = np.zeros((3, c.radial, channels + kinds))
            matrix = np.zeros((3, 3, c.radial, channels))
            for first, j, gap in pairs:
                if first != i:
                    continue
                r = np.linalg.norm(gap)
                unit, x = gap / r, r / c.cutoff
                fade = 1 - 35 * x**4 + 84 * x**5 - 70 * x**6 + 20 * x**7
                number = np.arange(1, c.radial + 1)
                waves = 2 / (1 + number) * np.sin(np.pi * number * x) * np.sqrt(8 / c.cutoff) / r * fade
                zero[:, :channels] += np.outer(waves, sent[j])
                zero[:, channels:] += np.outer(waves, np.sqrt(3) * unit @ sent_vectors[j])
                for axis in range(3):
                    vector[axis, :, :channels] += np.sqrt(3) * unit[axis] * np.outer(waves, sent[j])
                    vector[axis, :, channels:] += np.outer(waves, sent_vectors[j, axis])
                quadrupole = np.sqrt(15) * (np.outer(unit, unit) - np.eye(3) / 3)
                matrix += quadrupole[:, :, None, None] * np.outer(waves, sent[j])
            scalar = zero.ravel() @ w[p + "arrivals.to_scalar.weight"].T
            v = soft(vector.reshape(3, -1) @ w[p + "arrivals.to_vector.weight"].T)
            self_term = w[p + "own.weight"] @ scalars[i] + w[p + "own.bias"]
            invariants = [scalar + self_term, (v**2).sum(0)]
            rotated = None
            if order == 2:
                t = soft(matrix.reshape(3, 3, -1) @ w[p + "arrivals.to_matrix.weight"].T)
                rotated = np.einsum("xyf,yf->xf", t, v)
                invariants += [(t**2).sum((0, 1)) / 2, (v * rotated).sum(0)]
            inner = w[p + "hidden.weight"] @ np.concatenate(invariants) + w[p + "hidden.bias"]
            inner = inner / (1 + np.exp(-inner))
            new_scalars[i] = w[p + "out.weight"] @ inner + w[p + "out.bias"] + (scalars[i] if layer else 0.0)
            if layer < c.layers - 1:
                gates = w[p + "gates.weight"] @ inner + w[p + "gates.bias"]
                new_vectors[i] = v * gates[: c.features]
                if rotated is not None:
                    new_vectors[i] += rotated * gates[c.features :]
                if layer:
                    assert vectors is not None
                    new_vectors[i] += vectors[i] @ w[p + "keep_vectors.weight"].T
        scalars, vectors = new_scalars, new_vectors
    reference = np.array([w["references.energies"][ELEMENTS.index(int(z))] for z in structure.numbers])
    return reference + scalars @ w["readout.weight"][0] + w["readout.bias"][0]


@every_shape
def test_energies_are_those_of_the_equations(shape: dict[str, Any]) -> None:
    model = network(**shape)
    structures = [*molecules([6, 2]), atom(8), linear(3), crystal(0)]
    labels = evaluate(model, collate(structures, CUTOFF), Request(atomic_energies=True))
    assert labels.atomic_energies is not None
    for i, structure in enumerate(structures):
        energies = labels.atomic_energies[labels.atom_slice(i)]
        np.testing.assert_allclose(energies, slow_energies(model, structure), rtol=0, atol=1e-10, err_msg=structure.id)


# --- invariances ---------------------------------------------------------------------------------------------------


@every_shape
def test_invariance_under_motion_mirror_and_order(shape: dict[str, Any]) -> None:
    model, structure = network(**shape), molecule(8, seed=4)
    rng = np.random.default_rng(0)
    variants = [structure]
    for k in range(3):
        matrix = rotation(k) * (-1) ** k
        variants.append(structure.with_positions(structure.positions @ matrix.T + 10 * rng.normal(size=3)))
    order = rng.permutation(8)
    variants.append(Structure(structure.numbers[order], structure.positions[order]))
    labels = evaluate(model, collate(variants, CUTOFF), Request(atomic_energies=True))
    assert labels.energy is not None
    assert labels.atomic_energies is not None
    torch.testing.assert_close(labels.energy, labels.energy[:1].expand(5), rtol=0, atol=1e-11)
    per_atom = labels.atomic_energies.split(8)
    torch.testing.assert_close(per_atom[1], per_atom[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(per_atom[4], per_atom[0][torch.from_numpy(order)], rtol=0, atol=1e-11)


def directions(batch: Batch, k: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(k, len(batch.numbers), 3)))


@every_shape
def test_curvature_is_symmetric_and_obeys_sum_rules(shape: dict[str, Any]) -> None:
    """`u·Hv = v·Hu`, `H t = 0`, and `H (e × r) = e × ∇E`."""
    model = network(**shape)
    batch = collate([*molecules([7, 4]), linear(3)], CUTOFF)
    u, v = directions(batch, 2)
    shift = torch.ones_like(u) * torch.tensor([1.0, -2.0, 0.5])
    axis = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    rotation_vectors = torch.linalg.cross(axis.expand_as(u), batch.positions)
    labels = evaluate(model, batch, Request(forces=True, probes=torch.stack([u, v, shift, rotation_vectors])))
    assert labels.hvp is not None
    assert labels.forces is not None
    scale = float(labels.hvp[:2].abs().max())
    assert float(((u * labels.hvp[1]) - (v * labels.hvp[0])).sum().abs()) < 1e-11 * scale * len(u)
    assert float(labels.hvp[2].abs().max()) < 1e-11 * scale
    rotated = torch.linalg.cross(axis.expand_as(u), -labels.forces)
    torch.testing.assert_close(labels.hvp[3], rotated, rtol=0, atol=1e-11 * scale)


@every_shape
def test_central_differences_converge_to_forces_and_products_at_second_order(shape: dict[str, Any]) -> None:
    model, structure = network(**shape), molecule(7, seed=1)
    batch = collate([structure], CUTOFF)
    v = directions(batch, 1)
    exact = evaluate(model, batch, Request(forces=True, probes=v))
    assert exact.hvp is not None
    assert exact.forces is not None
    steps, errors = np.logspace(-2.5, -3.5, 3), []
    for h in steps:
        sides = [
            evaluate(model, collate([structure.with_positions(structure.positions + s * h * v[0].numpy())], CUTOFF),
                     Request(forces=True))
            for s in (1, -1)
        ]  # fmt: skip
        energies, forces = ([getattr(side, name) for side in sides] for name in ("energy", "forces"))
        work = float((energies[0] - energies[1]) / (2 * h) + (exact.forces * v[0]).sum())
        errors.append([abs(work), float(((forces[1] - forces[0]) / (2 * h) - exact.hvp[0]).norm())])
    for column in np.array(errors).T:
        order, _ = np.polyfit(np.log(steps), np.log(column), 1)
        assert 1.8 < order < 2.2


@pytest.mark.slow
@every_shape
def test_parameter_gradient_of_a_curvature_loss_is_that_of_finite_differences(shape: dict[str, Any]) -> None:
    """Every parameter tensor, along a random direction."""
    model = network(**shape)
    batch = collate([*molecules([5, 3]), crystal(0)], CUTOFF)
    v, target = directions(batch, 2)

    def loss(create_graph: bool) -> torch.Tensor:
        labels = evaluate(model, batch, Request(forces=True, probes=v[None]), create_graph=create_graph)
        assert labels.hvp is not None
        assert labels.forces is not None
        return (labels.hvp[0] - target).square().mean() + labels.forces.square().mean()

    names, parameters = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss(True), parameters, materialize_grads=True)
    generator = torch.Generator().manual_seed(0)
    largest = max(float(slope.norm()) for slope in slopes)
    h = 1e-5
    for name, parameter, slope in zip(names, parameters, slopes, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        sides = []
        for sign in (1, -2, 1):
            with torch.no_grad():
                parameter.add_(sign * h * direction)
            sides.append(float(loss(False)))
        estimate = (sides[0] - sides[1]) / (2 * h)
        assert estimate == pytest.approx(float((slope * direction).sum()), rel=1e-5, abs=1e-7 * largest), name


@every_shape
def test_energies_add_up_and_batches_equal_their_structures_one_by_one(shape: dict[str, Any]) -> None:
    model = network(**shape)
    one, two = molecule(5, seed=1), molecule(4, seed=2)
    away = two.positions + np.array([30.0, 0.0, 0.0])
    far = Structure(np.concatenate([one.numbers, two.numbers]), np.concatenate([one.positions, away]))
    structures = [one, two, far, crystal(0), atom(6)]
    request = Request(forces=True, hessian=True)
    labels = evaluate(model, collate(structures, CUTOFF), request)
    assert labels.energy is not None
    assert labels.forces is not None
    assert float(labels.energy[2]) == pytest.approx(float(labels.energy[:2].sum()), abs=1e-11)
    torch.testing.assert_close(labels.forces[9:18], labels.forces[:9], rtol=0, atol=1e-11)
    for i, structure in enumerate(structures):
        alone = evaluate(model, collate([structure], CUTOFF), request)
        torch.testing.assert_close(labels.forces[labels.atom_slice(i)], alone.forces, rtol=0, atol=1e-11)
        torch.testing.assert_close(labels.hessian_of(i), alone.hessian_of(0), rtol=0, atol=1e-10)


@every_shape
def test_a_crystal_equals_its_supercell(shape: dict[str, Any]) -> None:
    model, unit = network(**shape), crystal(2)
    shifts = np.array([(a, b, 0) for a in range(2) for b in range(2)]) @ unit.cell
    large = Structure(
        np.tile(unit.numbers, 4),
        np.concatenate([unit.positions + s for s in shifts]),
        cell=unit.cell * np.array([[2.0], [2.0], [1.0]]),
        pbc=(True,) * 3,
    )
    request = Request(forces=True, stress=True, atomic_energies=True)
    labels = evaluate(model, collate([unit, large], CUTOFF), request)
    for name in ("atomic_energies", "forces"):
        value = getattr(labels, name)
        repeated = value[:3].repeat(4, *([1] * (value.dim() - 1)))
        torch.testing.assert_close(value[3:], repeated, rtol=0, atol=1e-10)
    assert labels.stress is not None
    torch.testing.assert_close(labels.stress[1], labels.stress[0], rtol=0, atol=1e-11)


def test_an_isolated_atom_is_a_constant() -> None:
    model = network()
    request = Request(forces=True, hessian=True)
    labels = evaluate(model, collate([atom(6), atom(6).with_positions(np.array([[1.0, 2.0, 3.0]]))], CUTOFF), request)
    assert labels.energy is not None
    assert labels.forces is not None
    assert labels.hessian is not None
    assert float(labels.energy[0]) == float(labels.energy[1])
    assert not labels.forces.any()
    assert not labels.hessian.any()


@every_shape
def test_energy_forces_and_hessian_are_continuous_across_the_cutoff(shape: dict[str, Any]) -> None:
    """The jump over ±d of energy, forces, Hessian falls at least like d⁴, d³, d²."""
    model = network(**shape)

    def jumps(gap: float) -> list[float]:
        frames = []
        for side in (-1, 1):
            structure = Structure([6, 1, 8], [[0, 0, 0], [0.9, 0.5, 0], [0.0, 0.0, CUTOFF + side * gap]])
            labels = evaluate(model, collate([structure], CUTOFF), Request(forces=True, hessian=True))
            frames.append([labels.energy, labels.forces, labels.hessian])
        return [float((a - b).abs().max()) for a, b in zip(*frames, strict=True)]

    gaps = np.array([0.04, 0.02, 0.01])
    table = np.array([jumps(gap) for gap in gaps])
    for column, order in zip(table.T, (4, 3, 2), strict=True):
        slope, _ = np.polyfit(np.log(gaps), np.log(column), 1)
        assert slope > order - 0.4


AWKWARD = {
    "isolated atoms": [atom(1), atom(8)],
    "linear along an axis": [linear(4, axis=(0.0, 0.0, 1.0))],
    "padded beside a crowd": [atom(6), *molecules([12, 2])],
    "pair at the cutoff": [Structure([1, 8], [[0.0, 0, 0], [0, 0, d]]) for d in (CUTOFF, np.nextafter(CUTOFF, 0))],
    "square planar": [Structure([6, 1, 1, 1, 1], [[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])],
    "a crystal beside an atom": [crystal(0), atom(1)],
    "nearly on top": [Structure([1, 8], [[0.0, 0, 0], [0, 0, 0.05]])],
}


@pytest.mark.parametrize("name", AWKWARD)
def test_third_derivatives_are_finite(name: str) -> None:
    model = network()
    batch = collate(AWKWARD[name], CUTOFF)
    labels = evaluate(model, batch, Request(forces=True, probes=directions(batch, 1)), create_graph=True)
    assert labels.hvp is not None
    assert labels.forces is not None
    loss = labels.hvp.square().sum() + labels.forces.square().sum()
    assert bool(torch.isfinite(loss))
    if loss.requires_grad:
        for slope in torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True):
            assert bool(torch.isfinite(slope).all())


def test_l2_distinguishes_environments_that_l1_does_not() -> None:
    """Square and tetrahedron around an atom: the same distances, and vector sums of zero both times."""

    def center(l_max: int, positions_of_neighbors: list[list[float]]) -> float:
        model = network(l_max=l_max, layers=1, cutoff=1.3)
        structure = Structure([6] + [1] * len(positions_of_neighbors), [[0.0, 0, 0], *positions_of_neighbors])
        labels = evaluate(model, collate([structure], 1.3), Request(atomic_energies=True))
        assert labels.atomic_energies is not None
        return float(labels.atomic_energies[0])

    cross = [[1.0, 0, 0], [-1.0, 0, 0], [0.0, 1, 0], [0.0, -1, 0]]
    tetrahedron = (np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)).tolist()
    assert center(1, cross) == pytest.approx(center(1, tetrahedron), abs=1e-12)
    assert abs(center(2, cross) - center(2, tetrahedron)) > 1e-4


def test_messages_extend_beyond_the_cutoff() -> None:
    """Two layers: an atom depends on the neighbors of its neighbors; one layer: it does not."""

    def end(layers: int, third: float) -> float:
        model = network(layers=layers, cutoff=1.5)
        structure = Structure([1, 6, 8], [[0.0, 0, 0], [1.2, 0, 0], [1.2, third, 0]])
        labels = evaluate(model, collate([structure], 1.5), Request(atomic_energies=True))
        assert labels.atomic_energies is not None
        return float(labels.atomic_energies[0])

    assert end(1, 1.3) == pytest.approx(end(1, 1.2), abs=1e-12)
    assert abs(end(2, 1.3) - end(2, 1.2)) > 1e-6


def test_single_and_double_precision_agree() -> None:
    model, structures = network(), [*molecules([9, 4]), crystal(0)]
    batch = collate(structures, CUTOFF)
    probes = directions(batch, 2)
    wide = evaluate(model, batch, Request(forces=True, probes=probes))
    narrow = evaluate(model.float(), batch.to(dtype=torch.float32), Request(forces=True, probes=probes.float()))
    assert narrow.energy is not None
    assert narrow.energy.dtype == torch.float64
    for name in ("energy", "forces", "hvp"):
        a, b = getattr(narrow, name).double(), getattr(wide, name)
        assert float((a - b).abs().max()) < 3e-5 * float(b.abs().max()), name


def test_the_basis_keeps_its_digits_after_conversion_to_float32_and_back() -> None:
    model = network()
    batch = collate(molecules([6]), CUTOFF)
    before = model.basis(batch)
    torch.testing.assert_close(model.float().double().basis(batch), before, rtol=0, atol=0)


# --- files and refusals ----------------------------------------------------------------------------------------------


@every_shape
def test_round_trip_through_a_file(shape: dict[str, Any], tmp_path: Any) -> None:
    model = network(**shape)
    save_model(tmp_path / "model.hesse", model, {})
    again = load_model(tmp_path / "model.hesse")
    assert isinstance(again, HesseNet)
    assert again.config == model.config
    batch = collate([molecule(6, seed=0)], CUTOFF)
    first, second = (evaluate(m, batch, Request(forces=True)) for m in (model, again))
    assert torch.equal(first.energy, second.energy)  # type: ignore[arg-type]
    assert torch.equal(first.forces, second.forces)  # type: ignore[arg-type]


def test_the_error_names_an_unknown_element() -> None:
    structure = Structure([1, 9], [[0.0, 0, 0], [0.95, 0, 0]], id="fluoride-7")
    with pytest.raises(UnknownElementError, match=r'structure "fluoride-7" holds F; HesseNet knows H, C, O only'):
        evaluate(network(), collate([molecule(3, seed=1), structure], CUTOFF), Request())


def test_elements_must_be_unique() -> None:
    with pytest.raises(ConfigError, match="one or more different elements"):
        HesseNet(HesseNetConfig(), (1, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"l_max": 3},
        {"l_max": 0},
        {"features": 0},
        {"layers": 0},
        {"cutoff": -1.0},
        {"cutoff": float("nan")},
        {"cut": 5},
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HesseNetConfig(**wrong)
