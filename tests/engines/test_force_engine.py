"""Force engines: labels against closed forms, error estimates against true errors, replies to invalid requests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

import oracles
from closed_form_engines import ClosedForm
from hesse.datasets import sum_rule_errors
from hesse.engines import AseEngine, FiniteDifferences, ForceEngine, SinglePoint
from hesse.errors import ConfigError, EngineError, GeometryError, LabelShapeError, RequestError
from hesse.structures import Request, Structure, from_ase


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize(
    "structure", [oracles.molecule(6, 1), oracles.linear(3), oracles.crystal(2)], ids=lambda s: s.id
)
def test_labels_equal_closed_forms(structure):
    oracle = oracles.Morse()
    exact, n = oracle.exact(structure), len(structure)
    probes = torch.from_numpy(np.random.default_rng(0).normal(size=(3, n, 3)))
    labels = ClosedForm(oracle).compute(structure, Request(forces=True, probes=probes, hessian=True))
    assert labels.energy.item() == pytest.approx(exact.energy, rel=1e-12)
    assert labels.forces.numpy() == pytest.approx(-exact.gradient, abs=1e-12)
    assert labels.probes is not None
    torch.testing.assert_close(labels.probes, probes)
    assert labels.hvp.numpy() == pytest.approx(np.einsum("iajb,kjb->kia", exact.hessian, probes), abs=1e-5)
    hessian = labels.hessian_of(0).numpy()
    assert hessian == pytest.approx(exact.hessian, abs=5e-3)
    assert np.array_equal(hessian, hessian.transpose(2, 3, 0, 1))


def test_only_requested_properties_are_returned():
    labels = ClosedForm(oracles.Morse()).compute(oracles.molecule(3, 1), Request(energy=False, hessian=True))
    assert labels.energy is None
    assert labels.forces is None
    assert labels.forces_error is None
    assert labels.hvp is None
    assert labels.hessian is not None


def test_gradients_are_counted():
    """Three points for an HVP with its forces, five with Richardson, 6n + 1 for a Hessian."""
    structure = oracles.molecule(4, 1)
    probes = torch.ones(1, 4, 3, dtype=torch.float64)
    for differences, request, points in (
        (FiniteDifferences(), Request(forces=True, probes=probes), 3),
        (FiniteDifferences(richardson=True), Request(forces=True, probes=probes), 5),
        (FiniteDifferences(), Request(hessian=True), 25),
        (FiniteDifferences(hessian_richardson=True), Request(hessian=True), 49),
    ):
        engine = ClosedForm(oracles.Morse(), differences)
        engine.compute(structure, request)
        assert engine.calls == points


@pytest.mark.parametrize("noise", [0.0, 1e-5])
@pytest.mark.parametrize("fourth_order", [False, True])
def test_hessian_errors_are_estimated_within_a_factor_of_four(noise, fourth_order):
    oracle = oracles.Morse(cutoff=50.0)
    ratios = []
    for seed in range(12):
        structure = oracles.molecule(3 + seed % 4, seed)
        engine = ClosedForm(oracle, FiniteDifferences(step=4e-3, hessian_richardson=fourth_order), noise)
        labels = engine.compute(structure, Request(hessian=True))
        true = rms(labels.hessian_of(0).numpy() - oracle.exact(structure).hessian)
        ratios.append(float(labels.hessian_error[0]) / true)
    assert min(ratios) > 0.25, ratios
    assert max(ratios) < 4.0, ratios


def test_error_estimates_are_at_least_the_violation_of_sum_rules():
    structure = oracles.molecule(5, 4)
    probes = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 3)))
    labels = ClosedForm(oracles.Morse(), noise=1e-4).compute(
        structure, Request(forces=True, probes=probes, hessian=True)
    )
    defects = sum_rule_errors([structure], labels)
    assert bool((labels.hvp_error >= torch.fmax(defects.hvp_translation, defects.hvp_rotation)).all())
    assert float(labels.hessian_error[0]) >= float(defects.hessian_rotation[0])
    assert float(labels.forces_error[0]) == pytest.approx(
        max(float(defects.forces_translation[0]), float(defects.forces_rotation[0]))
    )


def test_the_step_is_the_largest_displacement():
    displacements = []

    class Watched(ForceEngine):
        name, level, settings, differences = "watched", "watched", {}, FiniteDifferences(step=2e-3, richardson=True)

        def energy_function(self, structure):
            def point(positions):
                displacements.append(np.abs(positions - structure.positions).max())
                return SinglePoint(0.0, np.zeros_like(positions))

            return point

    structure = oracles.molecule(3, 1)
    Watched().compute(structure, Request(probes=7.0 * torch.randn(1, 3, 3, dtype=torch.float64)))
    assert np.array(displacements) == pytest.approx([0.0, 2e-3, 2e-3, 4e-3, 4e-3], abs=1e-12)


def test_invalid_requests_get_a_reply():
    engine = ClosedForm(oracles.Morse())
    structure = oracles.molecule(3, 1, name="three")
    zeros = torch.zeros(1, 3, 3, dtype=torch.float64)
    with pytest.raises(LabelShapeError, match=r'"three".*\(1, 4, 3\).*\[k, 3, 3\]'):
        engine.compute(structure, Request(probes=torch.ones(1, 4, 3)))
    with pytest.raises(RequestError, match="zero or not finite"):
        engine.compute(structure, Request(probes=zeros))
    with pytest.raises(RequestError, match="no atomic energies"):
        engine.compute(structure, Request(atomic_energies=True))
    with pytest.raises(GeometryError, match="periodic"):
        engine.compute(structure, Request(stress=True))
    with pytest.raises(RequestError, match="no stress"):
        engine.compute(oracles.crystal(1), Request(stress=True))
    with pytest.raises(GeometryError, match="apart"):
        engine.compute(Structure([1, 1], [[0, 0, 0], [0, 0, 0.1]]), Request())
    for step in (0.0, -1e-3, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="step"):
            FiniteDifferences(step=step)


def test_results_that_are_not_finite_raise_an_error_with_the_id():
    with pytest.raises(EngineError, match=r'"three".*not finite'):
        ClosedForm(oracles.Morse(), noise=float("nan")).compute(
            oracles.molecule(3, 1, name="three"), Request(forces=True)
        )


@pytest.mark.parametrize("is_richardson", [False, True], ids=["two", "four"])
def test_the_derivative_of_grid_forces_is_part_of_the_error(is_richardson):
    """Forces of a perfect surface, and a grid part linear in one coordinate: its derivative is averaged with the
    violation of sum rules, which is zero here."""

    class Gridded(ClosedForm):
        def energy_function(self, structure):
            inner = super().energy_function(structure)

            def single_point(positions):
                point = inner(positions)
                grid = np.zeros_like(positions)
                grid[0, 0] = 0.3 * (positions[0, 0] - structure.positions[0, 0])
                return SinglePoint(point.energy, point.forces, grid_forces=grid)

            return single_point

    structure = oracles.molecule(4, 2)
    probe = torch.ones(1, 4, 3, dtype=torch.float64)
    engine = Gridded(oracles.Morse(), FiniteDifferences(step=1e-3, richardson=is_richardson))
    labels = engine.compute(structure, Request(probes=probe, hessian=True))
    assert float(labels.hvp_error[0, 0]) == pytest.approx(0.3 / np.sqrt(12) / np.sqrt(2), rel=1e-3)
    assert float(labels.hessian_error[0]) == pytest.approx(0.3 / 12 / np.sqrt(2), rel=0.05)


def test_gradient_noise_is_added_for_crystals():
    crystal = oracles.crystal(2)
    probe = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], size=(1, len(crystal), 3)))
    engine = ClosedForm(oracles.Morse(), FiniteDifferences(step=1e-3), noise=1e-4)
    labels = engine.compute(crystal, Request(forces=True, probes=probe))
    assert float(labels.hvp_error[0, 0]) > 0.9 * 1e-4 / np.sqrt(2) / 1e-3


def strained_copper():
    """A strained, displaced cell of four atoms, whose second-order truncation the even derivatives do not show."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell([[3.61, 0.0722, 0.0361], [0.0, 3.6461, 0.1083], [0.0, 0.0, 3.5739]], scale_atoms=True)
    atoms.rattle(0.1, seed=2)
    return atoms


@pytest.mark.parametrize(
    "atoms",
    [bulk("Cu", cubic=True), bulk("Cu") * (1, 1, 2), strained_copper(), fcc111("Cu", (1, 1, 3), vacuum=6.0)],
    ids=["ideal", "primitive", "strained", "slab"],
)
def test_truncation_in_crystals_is_seen_although_no_rotational_sum_rule_applies(atoms):
    structure = from_ase(atoms)
    engine = AseEngine(EMT())
    surface, n = engine.energy_function(structure), len(structure)

    def exact(v):
        slopes = [
            (surface(structure.positions - s * v).forces - surface(structure.positions + s * v).forces) / (2 * s)
            for s in (5e-4, 1e-3)
        ]
        return (4 * slopes[0] - slopes[1]) / 3

    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(4, n, 3))
    labels = engine.compute(structure, Request(forces=True, hessian=True, probes=torch.from_numpy(signs)))
    hessian = np.array([exact(v) for v in np.eye(3 * n).reshape(-1, n, 3)]).reshape(3 * n, 3 * n)
    true = rms(labels.hessian_of(0).numpy().reshape(3 * n, 3 * n) - (hessian + hessian.T) / 2)
    assert 0.5 < float(labels.hessian_error[0]) / true < 2.0
    errors = [rms(labels.hvp[k].numpy() - exact(v)) for k, v in enumerate(signs)]
    assert 0.5 < rms(labels.hvp_error.numpy()) / rms(errors) < 3.0


def test_the_cost_of_error_estimates_in_crystals_is_bounded():
    """Two further gradients at a quarter of the coordinates, at most six, but one of each element; none for products of
    a structure without symmetry."""
    structure = oracles.crystal(2)
    n, elements = len(structure), len(set(structure.numbers.tolist()))
    engine = ClosedForm(oracles.Morse())
    engine.compute(structure, Request(hessian=True))
    assert 1 + 6 * n < engine.calls <= 1 + 6 * n + 2 * max((3 * n + 3) // 4, elements)
    engine = ClosedForm(oracles.Morse())
    probes = np.random.default_rng(0).choice([-1.0, 1.0], size=(1, n, 3))
    engine.compute(structure, Request(probes=torch.from_numpy(probes)))
    assert engine.calls == 3
