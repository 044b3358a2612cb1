"""Dynamics on surfaces with known results: conservation laws, temperature, momenta, early ends."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest

import closed_form_engines
import oracles
from hesse.engines import Engine
from hesse.errors import ConfigError, EngineError, GeometryError, UnknownOptionError
from hesse.harmonic.normal_modes import normal_modes
from hesse.pes import MDSettings, run_md
from hesse.structures import Properties, Request, Structure
from hesse.units import BOLTZMANN, FEMTOSECOND


class Springs(Engine):
    """A spring between every pair of atoms, at rest at the given structure."""

    name, level, settings = "springs", "springs", MappingProxyType({})

    def __init__(self, rest: Structure, constant: float = 20.0, fail_after: int = 10**9) -> None:
        self.first, self.second = np.triu_indices(len(rest), 1)
        self.rest = self.lengths(rest.positions)[1]
        self.constant, self.left = constant, fail_after

    def lengths(self, x):
        gaps = x[self.first] - x[self.second]
        return gaps, np.linalg.norm(gaps, axis=1)

    def compute(self, structure, request):
        self.left -= 1
        if self.left < 0:
            raise EngineError("the license ran out")
        gaps, r = self.lengths(structure.positions)
        pulls = (self.constant * (r - self.rest) / r)[:, None] * gaps
        forces = np.zeros_like(structure.positions)
        np.add.at(forces, self.first, -pulls)
        np.add.at(forces, self.second, pulls)
        energy = float(0.5 * self.constant * np.sum((r - self.rest) ** 2))
        return Properties.single(len(structure), energy=energy, forces=forces)


@pytest.fixture(scope="module")
def five():
    return oracles.molecule(5, 3, name="five", elements=(6, 8))


def run(structure, engine=None, **options):
    return run_md(structure, engine or Springs(structure), MDSettings(**options))


def test_the_error_of_the_total_energy_is_second_order(five):
    steps = np.array([2.0, 1.0, 0.5, 0.25])  # fs
    errors = []
    for time_step in steps:
        result = run(five, temperature=300.0, ensemble="nve", time_step=time_step, steps=int(60 / time_step))
        assert result.completed
        errors.append(np.abs(result.total_energies - result.total_energies[0]).max())
    slope, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert 1.9 < slope < 2.1
    assert errors[-1] < 1e-3 * BOLTZMANN * 300.0 * 15


def test_a_diatomic_vibrates_with_its_frequency():
    """Independent of everything above: the period in fs from ω = √(k/μ) in CODATA units."""
    pair = Structure([6, 8], [[0, 0, 0], [1.1, 0, 0]])
    result = run(pair, Springs(pair, 100.0), temperature=30.0, ensemble="nve", rotation=False, steps=400, time_step=0.1)
    reduced = 12.011 * 15.999 / (12.011 + 15.999)
    period = 2 * np.pi * np.sqrt(reduced * 1.660539040e-27 / (100.0 * 1.6021766208e-19 * 1e20)) * 1e15
    # The energy peaks twice a period; count by the phase of its Fourier component.
    crossings = np.flatnonzero(np.diff(np.sign(result.potential_energies - result.potential_energies.mean())) > 0)
    assert np.diff(result.times[crossings]).mean() == pytest.approx(period / 2, rel=0.01)
    assert result.degrees_of_freedom == 1


@pytest.mark.slow
def test_langevin_temperature_and_equipartition():
    """A tetrahedron, which stays harmonic: 9 kinetic and 6 potential squares of Gaussians. The number N of independent
    draws in a run is measured from its own correlation, not assumed. A mean of f·N squares has the relative standard
    error √(2/fN), about 2 %, and is held to 4.5 of it: an error of 10 % in the temperature would show."""
    tetrahedron = 1.5 / np.sqrt(8) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    four = Structure([6, 8, 6, 8], tetrahedron)
    temperature = 50.0
    result = run(four, temperature=temperature, friction=0.1, time_step=1.0, steps=10_000, stride=10_000, seed=2)
    assert result.completed
    assert result.degrees_of_freedom == 9
    for energies, freedom in ((result.kinetic_energies, 9), (result.potential_energies, 6)):
        late = energies[100:]
        centered = late - late.mean()
        correlation = [float(np.mean(centered[k:] * centered[: len(centered) - k])) for k in range(60)]
        effective = len(late) / (2 * np.sum(correlation) / correlation[0] - 1)
        error = np.sqrt(2 / (freedom * effective))
        assert error < 0.025
        assert late.mean() == pytest.approx(0.5 * freedom * BOLTZMANN * temperature, rel=4.5 * error)
        # A chi-square distribution of f degrees of freedom has the relative variance 2/f.
        assert late.var() / late.mean() ** 2 == pytest.approx(2 / freedom, rel=0.2)


@pytest.mark.slow
def test_initial_velocities_have_the_maxwell_boltzmann_distribution(five):
    """400 starts: the kinetic energy of f = 12 or 9 directions, mean to 4.5 of √(2/400f) (2.0 and 2.4 %)."""
    engine = Springs(five)
    for rotation, freedom in ((True, 12), (False, 9)):
        starts = [
            run(five, engine, temperature=300.0, ensemble="nve", rotation=rotation, steps=1, seed=s) for s in range(400)
        ]
        kinetic = np.array([s.kinetic_energies[0] for s in starts])
        assert starts[0].degrees_of_freedom == freedom
        assert kinetic.mean() == pytest.approx(
            0.5 * freedom * BOLTZMANN * 300.0, rel=4.5 * np.sqrt(2 / (400 * freedom))
        )


@pytest.mark.slow
def test_momentum_and_angular_momentum_are_zero(five):
    masses = normal_modes(five, np.zeros((5, 3, 5, 3))).masses

    def momenta(snapshot):
        v, x = snapshot.velocities, snapshot.structure.positions
        centered = x - masses @ x / masses.sum()
        linear = masses @ v
        angular = np.sum(masses[:, None] * np.cross(centered, v), axis=0)
        return linear, angular, masses @ x / masses.sum()

    center = masses @ five.positions / masses.sum()
    for options in (
        {"ensemble": "nve", "rotation": False},
        {"ensemble": "nve"},
        {"ensemble": "langevin", "friction": 0.05},
    ):
        result = run(five, temperature=500.0, steps=400, stride=100, **options)
        for snapshot in result.snapshots:
            linear, angular, place = momenta(snapshot)
            assert linear == pytest.approx(0.0, abs=1e-10)
            assert place == pytest.approx(center, abs=1e-10)
            turns = np.abs(angular).max() > 1e-3
            assert turns == (options.get("rotation", True))
    first = run(five, temperature=500.0, steps=1, stride=1).snapshots[0]
    kinetic = 0.5 * np.sum(masses[:, None] * (first.velocities / FEMTOSECOND) ** 2)
    assert kinetic == pytest.approx(run(five, temperature=500.0, steps=1).kinetic_energies[0])


def test_a_run_is_a_function_of_its_seed(five):
    one, two, other = (run(five, temperature=300.0, steps=50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.total_energies, two.total_energies)
    assert not np.array_equal(one.total_energies, other.total_energies)


def test_snapshots_are_taken_at_the_requested_steps(five):
    result = run(five, temperature=300.0, steps=100, stride=30, equilibration=40)
    assert [s.step for s in result.snapshots] == [40, 70, 100]
    assert result.snapshots[0].structure.id == "five/40"
    assert len(result.times) == 101
    assert result.times[-1] == pytest.approx(50.0)
    again = Springs(five).compute(result.snapshots[1].structure, Request(energy=True, forces=True))
    assert float(again.energy[0]) == pytest.approx(result.snapshots[1].energy, abs=1e-10)
    assert again.forces.numpy() == pytest.approx(result.snapshots[1].forces, abs=1e-9)
    assert float(again.energy[0]) == pytest.approx(result.potential_energies[70], abs=1e-10)


@pytest.mark.slow
def test_a_temperature_ramp(five):
    result = run(five, temperature=10.0, final_temperature=1000.0, friction=0.1, steps=1500)
    thirds = result.temperatures[1:].reshape(3, -1).mean(1)
    assert thirds[0] < thirds[1] < thirds[2]
    assert thirds[2] == pytest.approx(825.0, rel=0.35)


def test_dynamics_of_a_crystal():
    crystal = oracles.crystal(2, size=5.0, elements=(6,))
    engine = closed_form_engines.ClosedForm(oracles.LennardJones(cutoff=4.0))
    result = run_md(crystal, engine, MDSettings(temperature=20.0, ensemble="nve", steps=3, stride=3))
    assert result.completed
    assert result.degrees_of_freedom == 6
    assert result.snapshots[-1].structure.pbc == crystal.pbc


def test_runs_that_end_early_have_a_reason(five):
    burnt = run(five, Springs(five, fail_after=20), temperature=300.0, steps=100, stride=5)
    assert not burnt.completed
    assert "license" in burnt.reason
    assert burnt.steps == len(burnt.times) - 1 < 25
    assert [s.step for s in burnt.snapshots] == list(range(0, burnt.steps + 1, 5))
    with pytest.raises(EngineError, match="license"):
        run(five, Springs(five, fail_after=0), temperature=300.0)

    loose = Springs(five, 0.05)
    apart = run(five, loose, temperature=20_000.0, steps=2000, max_bond_stretch=1.5, min_contact=1e-3)
    assert "dissociates" in apart.reason
    crash = run(five, loose, temperature=20_000.0, steps=2000)
    assert "collide" in crash.reason
    strong = run(five, temperature=300.0, steps=200, max_force=0.5)
    assert "a force of" in strong.reason
    wild = run(five, temperature=300.0, ensemble="nve", time_step=100.0, steps=50)
    assert not wild.completed


def test_invalid_settings_get_a_reply(five):
    for options, words in (
        ({"temperature": -1.0}, "temperatures"),
        ({"temperature": np.nan}, "temperatures"),
        ({"temperature": 300.0, "time_step": 0.0}, "time step"),
        ({"temperature": 300.0, "steps": 10, "equilibration": 11}, "within the run"),
        ({"temperature": 300.0, "max_bond_stretch": 0.5}, "stretch"),
        ({"temperature": 300.0, "ensemble": "nve", "final_temperature": 3.0}, "thermostat"),
        ({"temperature": 300.0, "rotation": False}, "makes molecules rotate"),
    ):
        with pytest.raises(ConfigError, match=words):
            MDSettings(**options)
    with pytest.raises(UnknownOptionError, match="langevin"):
        MDSettings(temperature=1.0, ensemble="langevine")
    with pytest.raises(GeometryError, match="collide"):
        run(Structure([6, 6], [[0, 0, 0], [0.5, 0, 0]]), temperature=1.0)
    with pytest.raises(GeometryError, match="lone atom"):
        run(oracles.atom(6), closed_form_engines.own_engine(), temperature=1.0)
