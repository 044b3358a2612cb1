"""`evaluate` against closed forms, finite differences and its alternative code paths."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch

from hesse.curvature import evaluate
from hesse.errors import GeometryError, LabelShapeError, RequestError, UnknownElementError
from hesse.potential import Potential
from hesse.probes import Gaussian, OneHot, ProbeSeed, Rademacher
from hesse.structures import Batch, Properties, Request, Structure, collate
from oracles import (
    Constant,
    Exact,
    Harmonic,
    LearnableLine,
    LennardJones,
    Morse,
    Oracle,
    Polynomial,
    atom,
    crystal,
    linear,
    molecules,
)

STRUCTURES = [*molecules([5, 2, 9]), atom(), linear(4), *molecules([7], seed=3)]
ORACLES: list[Oracle] = [
    Harmonic(STRUCTURES),
    Polynomial(),
    Morse(),
    LennardJones(),
    LearnableLine(),
    Constant(),
]
EVERYTHING = {"energy": True, "forces": True, "hessian": True, "atomic_energies": True}

by_name = pytest.mark.parametrize("oracle", ORACLES, ids=lambda o: type(o).__name__)


def probes_for(batch: Batch, k: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).normal(size=(k, len(batch.numbers), 3)))


def assert_equals_closed_form(
    labels: Properties, structures: list[Structure], exact: list[Exact], *, rtol: float = 1e-10, atol: float = 1e-10
) -> None:
    close = {"rtol": rtol, "atol": atol}
    for i, (s, truth) in enumerate(zip(structures, exact, strict=True)):
        rows = labels.atom_slice(i)
        assert labels.energy is not None
        assert labels.forces is not None
        np.testing.assert_allclose(labels.energy[i], truth.energy, **close, err_msg=s.id)
        np.testing.assert_allclose(labels.forces[rows], -truth.gradient, **close, err_msg=s.id)
        np.testing.assert_allclose(labels.hessian_of(i), truth.hessian, **close, err_msg=s.id)
        if labels.hvp is not None:
            assert labels.probes is not None
            products = np.einsum("iajb,kjb->kia", truth.hessian, labels.probes[:, rows].numpy())
            np.testing.assert_allclose(labels.hvp[:, rows], products, rtol=rtol, atol=10 * atol, err_msg=s.id)


@by_name
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("create_graph", [False, True])
def test_every_derivative_equals_its_closed_form(oracle: Oracle, k: int, create_graph: bool) -> None:
    batch = collate(STRUCTURES, oracle.cutoff)
    request = Request(**EVERYTHING, probes=probes_for(batch, k))
    labels = evaluate(oracle, batch, request, create_graph=create_graph).detach()
    assert_equals_closed_form(labels, STRUCTURES, [oracle.exact(s) for s in STRUCTURES], atol=1e-9)
    assert labels.atomic_energies is not None
    assert labels.energy is not None
    torch.testing.assert_close(batch.sum_over_atoms(labels.atomic_energies), labels.energy)


@by_name
def test_a_batch_equals_its_structures_one_by_one(oracle: Oracle) -> None:
    batch = collate(STRUCTURES, oracle.cutoff)
    probes = probes_for(batch)
    together = evaluate(oracle, batch, Request(**EVERYTHING, probes=probes))
    for i, structure in enumerate(STRUCTURES):
        rows = together.atom_slice(i)
        alone = evaluate(oracle, collate([structure], oracle.cutoff), Request(**EVERYTHING, probes=probes[:, rows]))
        one = together.select(torch.tensor([i]))
        for name in ("energy", "forces", "hvp", "hessian", "atomic_energies"):
            torch.testing.assert_close(getattr(one, name), getattr(alone, name), rtol=1e-12, atol=1e-11)


@by_name
def test_only_requested_properties_are_returned(oracle: Oracle) -> None:
    batch = collate(STRUCTURES, oracle.cutoff)
    probes = probes_for(batch)
    everything = evaluate(oracle, batch, Request(**EVERYTHING, probes=probes))
    requested = {
        "energy": Request(),
        "forces": Request(energy=False, forces=True),
        "hvp": Request(energy=False, probes=probes),
        "hessian": Request(energy=False, hessian=True),
    }
    for name, request in requested.items():
        labels = evaluate(oracle, batch, request)
        torch.testing.assert_close(getattr(labels, name), getattr(everything, name), rtol=1e-12, atol=1e-11)
        for other in {*requested, "atomic_energies", "stress"} - {name}:
            assert getattr(labels, other) is None, f"{other} came with {name}"


@pytest.mark.parametrize("oracle", [Morse(), Polynomial()], ids=lambda o: type(o).__name__)
def test_crystals_equal_closed_forms_with_images(oracle: Oracle) -> None:
    structures = [crystal(0), *molecules([4]), crystal(1, atoms=4, size=4.6)]
    batch = collate(structures, oracle.cutoff)
    labels = evaluate(oracle, batch, Request(**EVERYTHING, probes=probes_for(batch)))
    assert_equals_closed_form(labels, structures, [oracle.exact(s) for s in structures], atol=1e-8)


def test_stress_equals_its_closed_form_and_masks_molecules() -> None:
    oracle = LennardJones(sigma=1.7)
    structures = [crystal(0), *molecules([4]), crystal(2, atoms=4, size=4.3)]
    labels = evaluate(oracle, collate(structures, oracle.cutoff), Request(forces=True, stress=True))
    assert labels.stress is not None
    assert labels.mask("stress").tolist() == [True, False, True]
    assert labels.stress[1].isnan().all()
    for i in (0, 2):
        exact = oracle.exact(structures[i])
        assert exact.strain_slope is not None
        volume = abs(np.linalg.det(structures[i].cell))
        np.testing.assert_allclose(labels.stress[i], exact.strain_slope / volume, rtol=1e-9, atol=1e-12)
    # The strain must not change the other derivatives.
    plain = evaluate(oracle, collate(structures, oracle.cutoff), Request(forces=True))
    torch.testing.assert_close(labels.forces, plain.forces)
    torch.testing.assert_close(labels.energy, plain.energy)


def test_stress_is_the_slope_of_the_energy_of_strained_cells() -> None:
    # Morse cut at 6 Å has a step of 1e-4 there; strains this small move no pair of this crystal across.
    oracle, structure, h = Morse(), crystal(4), 1e-5
    labels = evaluate(oracle, collate([structure], oracle.cutoff), Request(stress=True))
    assert labels.stress is not None
    volume = abs(np.linalg.det(structure.cell))
    for a, b in [(0, 0), (1, 2), (2, 0)]:
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += 0.5 * sign * h
            strain[b, a] += 0.5 * sign * h
            moved = Structure(
                structure.numbers, structure.positions @ strain, cell=structure.cell @ strain, pbc=structure.pbc
            )
            assert len(moved.neighbors(6.0).centers) == len(structure.neighbors(6.0).centers)
            energies.append(oracle.exact(moved).energy)
        derivative = (energies[0] - energies[1]) / (2 * h) / volume
        assert float(labels.stress[0, a, b]) == pytest.approx(derivative, rel=1e-6, abs=1e-8)


def test_pressure_of_a_cubic_lennard_jones_crystal() -> None:
    """One atom in a cube: E(a) = ½ Σ_n φ(|n| a), so σ = E'(a) a / (3 V) on the diagonal and zero elsewhere."""
    oracle, a = LennardJones(sigma=2.0, cutoff=5.0), 2.3
    structure = Structure([18], [[0.1, 0.2, 0.3]], cell=a * np.eye(3), pbc=(True, True, True))
    labels = evaluate(oracle, collate([structure], 5.0), Request(forces=True, stress=True))
    grid = np.array([(i, j, k) for i in range(-3, 4) for j in range(-3, 4) for k in range(-3, 4)])
    lengths = np.linalg.norm(grid, axis=1)
    shells = lengths[(lengths > 0) & (lengths * a < 5.0)]
    derivative = 0.5 * sum(n * oracle.phi_exact(n * a)[1] for n in shells)
    assert labels.stress is not None
    np.testing.assert_allclose(labels.stress[0], derivative * a / (3 * a**3) * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(labels.forces, np.zeros((1, 3)), atol=1e-12)


@pytest.mark.parametrize("oracle", [Morse(), Polynomial()], ids=lambda o: type(o).__name__)
def test_central_differences_of_forces_reach_hvps_at_second_order(oracle: Oracle) -> None:
    (structure,) = molecules([6], seed=2)
    batch = collate([structure], oracle.cutoff)
    direction = probes_for(batch, 1)
    exact = evaluate(oracle, batch, Request(probes=direction)).hvp
    assert exact is not None

    def forces(step: float) -> torch.Tensor:
        moved = batch.with_positions(positions=batch.positions + step * direction[0])
        result = evaluate(oracle, moved, Request(forces=True)).forces
        assert result is not None
        return result

    steps = np.logspace(-2, -3.2, 5)
    errors = [float(((forces(-h) - forces(h)) / (2 * h) - exact[0]).norm()) for h in steps]
    order, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert 1.95 < order < 2.05


def test_forces_are_the_slope_of_the_energy_at_second_order() -> None:
    oracle = LennardJones()
    (structure,) = molecules([6], seed=4)
    batch = collate([structure], oracle.cutoff)
    direction = probes_for(batch, 1)[0]
    labels = evaluate(oracle, batch, Request(forces=True))
    assert labels.forces is not None
    derivative = -float((labels.forces * direction).sum())

    def energy(step: float) -> float:
        return oracle.exact(structure.with_positions(structure.positions + step * direction.numpy())).energy

    steps = np.logspace(-2.2, -3.4, 5)
    errors = [abs((energy(h) - energy(-h)) / (2 * h) - derivative) for h in steps]
    order, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert 1.95 < order < 2.05


@pytest.mark.parametrize("memory_mib", [1e-6, 0.01, 0.05, 1.0, 1e5])
def test_the_memory_limit_does_not_change_results(memory_mib: float) -> None:
    oracle = Morse()
    batch = collate(STRUCTURES, oracle.cutoff)
    labels = evaluate(oracle, batch, Request(**EVERYTHING), memory_mib=memory_mib)
    assert_equals_closed_form(labels, STRUCTURES, [oracle.exact(s) for s in STRUCTURES], atol=1e-9)


def test_the_memory_limit_determines_the_columns_per_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("hesse.curvature.energy_derivatives")
    sizes: list[int] = []
    original = module.hvp_vmapped

    def counted(
        gradient: torch.Tensor, positions: torch.Tensor, directions: torch.Tensor, *rest: Any, **more: Any
    ) -> Any:
        sizes.append(len(directions))
        return original(gradient, positions, directions, *rest, **more)

    monkeypatch.setattr(module, "hvp_vmapped", counted)
    oracle, batch = Morse(), collate(molecules([9, 4]), 6.0)
    peaks = []
    for memory in (1e-6, 0.05, 1e5):
        sizes.clear()
        evaluate(oracle, batch, Request(hessian=True), memory_mib=memory)
        assert sum(sizes) == 27
        peaks.append(max(sizes))
    assert peaks[0] == 1 < peaks[1] < peaks[2] == 27


def test_one_normalization_exactly_for_all_one_hot_probes_and_on_average_for_others() -> None:
    """`|ΔH v|²/(9N²)`: its mean over the 3N one-hot probes is `‖ΔH‖²/(9N²)`; over random ones, within 4.5 σ."""
    (structure,) = molecules([5], seed=8)
    truth, guess = Morse(), Morse(depth=3.0, r0=1.2)
    batch, n = collate([structure], 6.0), 5
    error = guess.exact(structure).hessian - truth.exact(structure).hessian
    expected = float(np.sum(error**2)) / (9 * n * n)

    def losses(probes: torch.Tensor) -> torch.Tensor:
        products = [evaluate(oracle, batch, Request(probes=probes)).hvp for oracle in (guess, truth)]
        difference = products[0] - products[1]  # type: ignore[operator]
        return difference.square().sum((1, 2)) / (9 * n * n)

    columns = np.sqrt(3 * n) * torch.eye(3 * n, dtype=torch.float64).reshape(3 * n, n, 3)
    assert float(losses(columns).mean()) == pytest.approx(expected, rel=1e-12)
    for family in (Rademacher(4000), Gaussian(4000), OneHot(4000)):
        sampled = losses(family.draw(batch, ProbeSeed(seed=1)))
        spread = float(sampled.std()) / np.sqrt(len(sampled))
        assert abs(float(sampled.mean()) - expected) < 4.5 * spread
        assert spread < 0.05 * expected  # precise enough to detect an error of 25 %


def test_parameters_receive_gradients_only_with_a_graph() -> None:
    oracle = LearnableLine()
    batch = collate(STRUCTURES, oracle.cutoff)
    without = evaluate(oracle, batch, Request(forces=True, probes=probes_for(batch)))
    assert without.forces is not None
    assert not without.forces.requires_grad
    labels = evaluate(oracle, batch, Request(forces=True), create_graph=True)
    assert labels.forces is not None
    labels.forces.square().sum().backward()
    # Forces are -θ b for every atom: d/dθ Σ θ² b² = 2 θ N |b|².
    assert float(oracle.theta.grad) == pytest.approx(2 * 1.5 * len(batch.numbers) * 5.25)  # type: ignore[arg-type]


def test_tensors_and_grad_mode_of_the_caller_are_unchanged() -> None:
    oracle = Morse()
    batch = collate(STRUCTURES, oracle.cutoff)
    before = batch.positions.clone()
    with torch.no_grad():
        labels = evaluate(oracle, batch, Request(forces=True, hessian=True))
        assert not torch.is_grad_enabled()
    assert labels.hessian is not None
    assert not batch.positions.requires_grad
    assert batch.positions.grad is None
    torch.testing.assert_close(batch.positions, before, rtol=0, atol=0)


def test_float32_agrees_with_float64() -> None:
    oracle = Morse()
    batch = collate(STRUCTURES, oracle.cutoff)
    wide = evaluate(oracle, batch, Request(forces=True, hessian=True))
    narrow = evaluate(oracle, batch.to(dtype=torch.float32), Request(forces=True, hessian=True))
    assert narrow.hessian is not None
    assert narrow.hessian.dtype == torch.float32
    for name in ("forces", "hessian"):
        scale = float(getattr(wide, name).abs().max())
        torch.testing.assert_close(getattr(narrow, name).double(), getattr(wide, name), rtol=0, atol=2e-6 * scale)


class WrongShape(Potential):
    cutoff = 5.0

    def forward(self, batch: Batch) -> torch.Tensor:
        return batch.positions.sum()


class KnowsOnlyHydrogen(Morse):
    elements = (1,)


def test_an_unknown_element_is_named_with_its_structure() -> None:
    potential = KnowsOnlyHydrogen()
    known = Structure([1, 1], [[0.0, 0, 0], [0.8, 0, 0]], id="hydrogen")
    foreign = Structure([1, 9], [[0.0, 0, 0], [0.9, 0, 0]], id="hydrogen-fluoride")
    evaluate(potential, collate([known], 6.0), Request())
    with pytest.raises(UnknownElementError, match=r'structure "hydrogen-fluoride" holds F; Knows.* H only'):
        evaluate(potential, collate([known, foreign], 6.0), Request())


def test_invalid_requests_raise() -> None:
    batch = collate(STRUCTURES, 4.0)
    with pytest.raises(RequestError, match=r"up to 4\.0 Å, but Morse needs them up to 6\.0 Å.*collate"):
        evaluate(Morse(), batch, Request())
    batch = collate(STRUCTURES, 6.0)
    for shape in [(len(batch.numbers), 3), (1, 3, 3), (0, len(batch.numbers), 3)]:
        with pytest.raises(LabelShapeError, match=r"expected \[probes, atoms, 3\]"):
            evaluate(Morse(), batch, Request(probes=torch.zeros(shape)))
    with pytest.raises(GeometryError, match="periodic in all three"):
        evaluate(Morse(), batch, Request(stress=True))
    with pytest.raises(LabelShapeError, match=r"WrongShape returned energies of shape \(\)"):
        evaluate(WrongShape(), batch, Request())


def test_a_potential_detached_from_autograd_raises() -> None:
    class Detached(Potential):
        def __init__(self) -> None:
            super().__init__()
            self.cutoff = 3.0
            self.stiffness = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, batch: Batch) -> torch.Tensor:
            return (self.stiffness * batch.neighbor_vectors().square().sum((1, 2))).detach()

    batch = collate(molecules([3]), 3.0)
    with pytest.raises(RequestError, match="Detached depend neither on positions nor"):
        evaluate(Detached(), batch, Request(forces=True))
