"""Self-consistent phonons: oscillators with closed forms, exact free energies, resuming, and impossible requests."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from types import MappingProxyType

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq

pytest.importorskip("phonopy", reason="phonopy is not installed")

import hesse
from hesse.engine import ENERGY_AND_FORCES, Engine
from hesse.errors import ConfigError, EngineError, HarmonicWarning
from hesse.lattice import THZ, anharmonic
from hesse.lattice.thermal_gaussian import ThermalGaussian, effective_sample_size, normalized_weights
from hesse.structures import Properties, Request
from hesse.units import BOLTZMANN, HBAR

pytestmark = pytest.mark.filterwarnings("ignore::hesse.errors.HarmonicWarning")
REST = np.array([2.0, 2.0, 2.0])
CRYSTAL = Atoms("CsCl", positions=[[0, 0, 0], REST], cell=[4.0] * 3, pbc=True)
MASSES = CRYSTAL.get_masses()
REDUCED = MASSES[0] * MASSES[1] / MASSES.sum()


class Relative(Engine):
    """½ k d² + λ d⁴ of the displacement d of two atoms from each other: a quartic oscillator in three dimensions."""

    level = "relative"
    settings = MappingProxyType({})

    def __init__(self, k: float, quartic: float) -> None:
        self.k, self.quartic, self.calls = k, quartic, 0

    def compute(self, structure, request: Request = ENERGY_AND_FORCES) -> Properties:
        self.calls += 1
        d = structure.positions[1] - structure.positions[0] - REST
        square = d @ d
        gradient = (self.k + 4 * self.quartic * square) * d
        fields = {"energy": 0.5 * self.k * square + self.quartic * square**2}
        if request.forces:
            fields["forces"] = np.array([gradient, -gradient])
        if request.stress:
            fields["stress"] = np.zeros((1, 3, 3))
        if request.probes is not None:
            hessian = (self.k + 4 * self.quartic * square) * np.eye(3) + 8 * self.quartic * np.outer(d, d)
            products = (request.probes[:, 1] - request.probes[:, 0]).numpy() @ hessian
            fields |= {"probes": request.probes, "hvp": np.stack([-products, products], 1)}
        return Properties.single(2, **{name: torch.as_tensor(value) for name, value in fields.items()})


def closed_form(k: float, quartic: float, temperature: float) -> float:
    """Frequency of the oscillator whose force constant is the mean of ∂²V over its own Gaussian, THz.

    The mean of ∂²(d⁴)/∂x² over three equal variances s is 20 s.
    """

    def omega(phi: float) -> float:
        return float(np.sqrt(phi / REDUCED))

    def variance(phi: float) -> float:
        spread = 1.0 if temperature == 0 else 1 / np.tanh(HBAR * omega(phi) / (2 * BOLTZMANN * temperature))
        return float(HBAR / (2 * REDUCED * omega(phi)) * spread)

    return omega(brentq(lambda phi: k + 20 * quartic * variance(phi) - phi, 1e-3, 50.0)) * HBAR / THZ


def exact_free_energy(k: float, quartic: float, temperature: float) -> float:
    """Free energy of the oscillator from its radial levels, eV: −ħ²/2μ u'' + [V + ħ² l(l + 1)/2μr²] u = E u."""
    grid = np.linspace(0, 2.0, 2001)[1:-1]
    h = grid[1] - grid[0]
    kinetic = HBAR**2 / (2 * REDUCED)
    energies, degeneracies = [], []
    for l in range(60):  # noqa: E741 (angular momentum)
        potential = 0.5 * k * grid**2 + quartic * grid**4 + kinetic * l * (l + 1) / grid**2
        off = np.full(len(grid) - 1, -kinetic / h**2)
        levels = eigh_tridiagonal(
            2 * kinetic / h**2 + potential, off, eigvals_only=True, select="i", select_range=(0, 39)
        )
        energies.append(levels)
        degeneracies.append(np.full(40, 2 * l + 1))
    levels, weights = np.concatenate(energies), np.concatenate(degeneracies)
    lowest = levels.min()
    if temperature == 0:
        return float(lowest)
    return float(
        lowest - BOLTZMANN * temperature * np.log(weights @ np.exp(-(levels - lowest) / (BOLTZMANN * temperature)))
    )


def test_the_gaussian_is_that_of_the_oscillators():
    """Variances and covariances of displacements, by many samples; densities by their ratio."""
    rng = np.random.default_rng(0)
    constants = np.zeros((2, 2, 3, 3))
    block = np.diag([1.0, 2.0, 3.0])
    constants[0, 0] = constants[1, 1] = block
    constants[0, 1] = constants[1, 0] = -block
    gaussian = ThermalGaussian(constants, MASSES, 300.0)
    expected = np.sqrt(np.array([1.0, 2.0, 3.0]) / REDUCED)
    np.testing.assert_allclose(gaussian.frequencies, expected * HBAR / THZ, rtol=1e-10)
    moves = gaussian.sample(40000, rng)
    assert np.abs(moves.mean(0)).max() < 1e-12  # pairs of opposite sign
    relative = moves[:, 1] - moves[:, 0]
    variances = HBAR / (2 * REDUCED * expected) / np.tanh(HBAR * expected / (2 * BOLTZMANN * 300.0))
    np.testing.assert_allclose(relative.var(0), variances, rtol=0.03)  # 20,000 independent: standard error 1 %
    np.testing.assert_allclose(np.einsum("nix,i->nx", moves, MASSES), 0, atol=1e-9)
    np.testing.assert_allclose(gaussian.potential_energy(moves[:9]), 0.5 * (relative[:9] ** 2 @ [1, 2, 3]), rtol=1e-9)
    wider = ThermalGaussian(constants, MASSES, 450.0)
    weights = normalized_weights(moves, gaussian, wider)
    again = HBAR / (2 * REDUCED * expected) / np.tanh(HBAR * expected / (2 * BOLTZMANN * 450.0))
    np.testing.assert_allclose(weights @ relative**2, again, rtol=0.05)
    assert 1 < effective_sample_size(weights) < 40000
    assert effective_sample_size(np.full(5, 0.2)) == pytest.approx(5)


@pytest.mark.parametrize("soft", [1.0, -1.0])
def test_soft_modes_are_sampled_with_a_floor(soft):
    constants = np.zeros((2, 2, 3, 3))
    constants[0, 0] = constants[1, 1] = soft * 1e-6 * np.eye(3)
    constants[0, 1] = constants[1, 0] = -soft * 1e-6 * np.eye(3)
    gaussian = ThermalGaussian(constants, MASSES, 0.0)
    assert gaussian.n_raised == 3
    assert np.isfinite(gaussian.sample(4, np.random.default_rng(0))).all()


@pytest.mark.slow
@pytest.mark.parametrize(("k", "temperature"), [(1.0, 0.0), (1.0, 300.0), (-0.5, 0.0), (-0.5, 300.0), (-4.0, 900.0)])
def test_quartic_oscillators_and_double_wells(k, temperature):
    """Frequencies by the closed form; free energies above the exact ones, and near."""
    result = anharmonic(CRYSTAL, Relative(k, 5.0), temperature, supercell=1, snapshots=400, mesh=(1, 1, 1))
    assert result.converged
    found, error = result.phonons.gamma[-1], result.frequency_errors[0, -1]
    assert found == pytest.approx(closed_form(k, 5.0, temperature), abs=3 * error)
    assert error < 0.06 * found
    np.testing.assert_allclose(result.phonons.gamma[-3:], found, rtol=1e-6)  # the symmetry of the crystal is kept
    exact = exact_free_energy(k, 5.0, temperature)
    above = result.free_energy - exact
    assert above > -3 * result.free_energy_error
    assert above < 3 * result.free_energy_error + (0.02 if k < 0 else 0.006)
    assert result.row()["lowest"] == pytest.approx(found)
    if k > 0:
        assert result.row()["lowest_harmonic"] == pytest.approx(result.harmonic.gamma[-1])


def test_a_harmonic_crystal_stays_as_it_is():
    engine = Relative(2.0, 0.0)
    result = anharmonic(CRYSTAL, engine, 100.0, supercell=1, snapshots=16, mesh=(1, 1, 1))
    np.testing.assert_allclose(result.phonons.gamma, result.harmonic.gamma, atol=1e-6)
    assert result.converged
    assert result.frequency_errors.max() < 1e-6
    assert result.free_energy == pytest.approx(result.harmonic.thermal(100.0, (1, 1, 1)).free_energy[0], abs=1e-9)
    assert result.free_energy_error < 1e-9
    assert result.n_evaluations == 16 * len(result.rounds)


@pytest.mark.slow
def test_the_recursion_limit_stays_as_it_is():
    """symfc raises it when it is imported; then a deeply nested file crashes the process."""
    code = (
        "import sys; limit = sys.getrecursionlimit(); from ase.build import bulk; import hesse, warnings; "
        "warnings.simplefilter('ignore'); from ase.calculators.emt import EMT; "
        "from hesse.lattice.symmetric_fit import SymmetricFit; "
        "SymmetricFit(hesse.phonons(bulk('Al', cubic=True), EMT(), supercell=1).record); "
        "assert 'symfc' in sys.modules; assert sys.getrecursionlimit() == limit, sys.getrecursionlimit()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_progress_tells_the_temperature(monkeypatch):
    told = []

    def track(text, total, *, quiet):
        told.append(text)
        return nullcontext(lambda _: None)

    monkeypatch.setattr("hesse.lattice.self_consistent.track", track)
    anharmonic(CRYSTAL, Relative(2.0, 0.0), 120.0, supercell=1, snapshots=16, rounds=1, mesh=(1, 1, 1))
    assert told == ["120 K, round 1: displaced supercells"]


def test_energies_and_forces_are_kept(tmp_path):
    options = {"supercell": 1, "snapshots": 16, "cache": tmp_path / "cache", "rounds": 1, "mesh": (1, 1, 1)}
    first_engine, second_engine = Relative(2.0, 1e-6), Relative(2.0, 1e-6)
    first = anharmonic(CRYSTAL, first_engine, 200.0, **options)
    second = anharmonic(CRYSTAL, second_engine, 200.0, **options)
    assert first.free_energy == second.free_energy
    assert first_engine.calls - second_engine.calls == 17  # the crystal at rest, and 16 displacements
    other = anharmonic(CRYSTAL, Relative(2.0, 1e-6), 200.0, **options | {"seed": 1})
    assert other.free_energy != first.free_energy


@pytest.mark.slow
@pytest.mark.filterwarnings("default::hesse.errors.HarmonicWarning")
def test_no_convergence_is_told():
    with pytest.warns(HarmonicWarning, match=r"have not converged in 1 rounds: .* of 16 displacements were effective"):
        result = anharmonic(CRYSTAL, Relative(-0.5, 5.0), 300.0, supercell=1, snapshots=16, rounds=1, mesh=(1, 1, 1))
    assert not result.converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"snapshots": 15}, "even number of at least 16"),
        ({"snapshots": 4}, "even number of at least 16"),
        ({"rounds": 0}, "rounds: expected a number of at least 1, got 0"),
        ({"min_effective": 1.5}, "min_effective: expected a number between 0 and 1, got 1.5"),
        ({"tolerance": 0.0}, "tolerance: expected a positive number of THz, got 0.0"),
    ],
)
def test_impossible_requests(options, message):
    with pytest.raises(ConfigError, match=message):
        anharmonic(CRYSTAL, Relative(1.0, 0.0), **{"supercell": 1} | options)


def test_engines_that_fail_are_named():
    class Failing(Relative):
        def compute(self, structure, request: Request = ENERGY_AND_FORCES) -> Properties:
            if structure.id.endswith("moved"):
                raise EngineError(f'structure "{structure.id}": no convergence')
            return super().compute(structure, request)

    with pytest.raises(EngineError, match="no convergence"):
        hesse.anharmonic(CRYSTAL, Failing(1.0, 0.0), 100.0, supercell=1, snapshots=16)
