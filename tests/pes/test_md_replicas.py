"""Replicas: criteria of failure, ramps, survivors and failures side by side, continuation of a stored state."""

from __future__ import annotations

import copy
from types import MappingProxyType

import numpy as np
import pytest
import torch

import closed_form_engines
import oracles
from hesse.engines import Engine, PotentialEngine
from hesse.errors import ConfigError, EngineError, UnknownOptionError
from hesse.pes import FailureReason, ReplicaSettings
from hesse.pes.md_failures import WINDOW, Failure, FailureMonitor
from hesse.pes.md_replicas import BLOCK, Replica, ReplicaRun, advance_replicas
from hesse.pes.md_start import starting_geometry
from hesse.structures import Structure, bead_number, closest_collision
from hesse.units import BOLTZMANN

NVE = {"ensemble": "nve", "relax": False}


def tetrahedron(name="four"):
    """The minimum of the Morse oracle."""
    return Structure([6] * 4, 1.1 / np.sqrt(8) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]), id=name)


def advance(runs, engine, settings, **options):
    done = []
    advance_replicas(runs, engine, settings, on_finished=done.append, **options)
    return done


def begin(settings, *starts, seeds=(0,)):
    return [ReplicaRun.begin(Replica(start, seed), settings) for start in starts for seed in seeds]


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_published_ramp() -> None:
    ramp = ReplicaSettings(ramp="jctc2025")
    assert (ramp.step_length, ramp.damping, ramp.criterion) == (1.0, 0.001, "jctc2025")
    assert ramp.n_steps == 120 * 5000
    assert [ramp.target(k) for k in (0, 1, 5000, 5001, 600_000)] == [5.0, 5.0, 5.0, 10.0, 600.0]
    short = ReplicaSettings(ramp="jctc2025", ceiling=12, interval=0.1)
    assert (short.n_steps, short.target(200)) == (200, 10.0)
    fast = ReplicaSettings(ramp="fast")
    assert (fast.n_steps, fast.target(fast.n_steps), fast.criterion) == (18_200, 3000.0, "fast")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"time_step": 0.0}, "time_step"),
        ({"ramp": "slow"}, "ramp"),
        ({"ramp": "fast", "temperature": 300.0}, "contradicts the ramp"),
        ({"ramp": "fast", "time": 3.0}, "contradicts the ramp"),
        ({"ramp": "fast", "ensemble": "nve"}, "thermostat"),
        ({"ramp": "fast", "ceiling": 200.0}, "below the first"),
        ({"ceiling": 200.0}, "belongs to a ramp"),
        ({"ensemble": "nve", "friction": 0.1}, "thermostat"),
        ({"time": 1e-5}, "shorter than"),
        ({"time": float("nan")}, "time"),
        ({"stride": -1}, "stride"),
    ],
)
def test_invalid_settings_get_a_reply(options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        ReplicaSettings(**options)
    with pytest.raises(UnknownOptionError, match="temperature"):
        ReplicaSettings(temperatur=3)


# --- criteria ---------------------------------------------------------------------------------------------------------


def check(monitor, step, *positions, forces=None):
    x = torch.from_numpy(np.concatenate(positions))
    values = torch.zeros_like(x) if forces is None else forces
    return monitor.check(step, x, torch.zeros(len(positions), dtype=torch.float64), values)


def test_mean_distances_over_fifty_steps() -> None:
    start = Structure([6, 8], [[0, 0, 0], [1.2, 0, 0]], id="pair")
    monitor = FailureMonitor("jctc2025", [start, start])
    near, far = start.positions, np.array([[0, 0, 0], [2.4, 0, 0]])
    for steps_near, fails in ((26, False), (24, True)):  # half of the steps at twice the length: a mean of 1.5
        for k in range(1, WINDOW + 1):
            failures = check(monitor, k, near, far if k > steps_near else near)
            assert not failures or k == WINDOW
        assert set(failures) == ({1} if fails else set())
    assert failures[1].reason is FailureReason.PAIR_DISTANCE
    assert "C0 and O1 are 1.82 Å apart, mean of 50 steps; 1.20 Å at the start" in failures[1].detail
    squeezed = np.array([[0, 0, 0], [0.89, 0, 0]])
    assert set([check(monitor, k, near, squeezed) for k in range(1, WINDOW + 1)][-1]) == {1}


def test_bonds_collisions_and_forces() -> None:
    start = Structure([6, 8, 1], [[0, 0, 0], [1.2, 0, 0], [0, 3, 0]], id="three")
    x = start.positions
    for moved, reason in (
        ([[0, 0, 0], [1.79, 0, 0], [0, 3, 0]], None),
        ([[0, 0, 0], [1.81, 0, 0], [0, 3, 0]], FailureReason.BOND_LENGTH),
        ([[0, 0, 0], [0.61, 0, 0], [0, 3, 0]], FailureReason.COLLISION),  # below 0.6 of the radii, 0.85 Å
        ([[0, 0, 0], [1.2, 0, 0], [0, 0.6, 0]], FailureReason.COLLISION),
        ([[0, 0, 0], [1.2, 0, 0], [0, 9, 0]], None),
    ):
        failures = check(FailureMonitor("fast", [start]), 1, np.array(moved, dtype=float))
        assert [f.reason for f in failures.values()] == ([] if reason is None else [reason])
    strong = torch.zeros(6, 3, dtype=torch.float64)
    strong[4, 0] = 101.0
    failures = check(FailureMonitor("fast", [start, start]), 1, x, x, forces=strong)
    assert {i: (f.reason, f.detail) for i, f in failures.items()} == {
        1: (FailureReason.LARGE_FORCE, "a force of 101 eV/Å on O1, more than 100")
    }
    for name in ("none", "fast", "jctc2025"):
        strong[0, 0] = torch.nan
        failures = check(FailureMonitor(name, [start, start]), 1, x, x, forces=strong)
        assert failures[0].reason is FailureReason.NOT_FINITE


def test_beads_collide_by_the_distances_of_data_not_by_radii() -> None:
    start = Structure([bead_number("C1"), bead_number("O1")], [[0, 0, 0], [1.1, 0, 0]])
    numbers = tuple(sorted(start.numbers.tolist()))
    for distance, contacts, fails in ((0.6, {numbers: 1.1}, False), (0.5, {numbers: 1.1}, True), (0.51, None, False)):
        x = np.array([[0.0, 0, 0], [distance, 0, 0]])
        assert bool(check(FailureMonitor("fast", [start], contacts=contacts), 1, x)) is fails
        assert (closest_collision(start.with_positions(x), contacts=contacts) is not None) is fails
    settings = ReplicaSettings(contacts=(("C1", "O1", 1.1),))
    assert settings.contact_distances == {numbers: 1.1}


def test_pairs_across_the_boundary_of_a_cell() -> None:
    chain = Structure([14, 14], [[0, 0, 0], [2.3, 0, 0]], cell=np.diag([4.6, 20, 20]), pbc=(True, False, False))
    monitor = FailureMonitor("jctc2025", [chain])
    moved = chain.positions + np.array([[0, 0, 0], [1.2, 0, 0]])
    failures = [check(monitor, k, moved) for k in range(1, WINDOW + 1)][-1]
    assert "Å apart, mean of 50 steps; 2.30 Å at the start" in failures[0].detail
    both = chain.positions + np.array([1.2, 3.0, 0.0])
    assert not [check(monitor, k, both) for k in range(1, WINDOW + 1)][-1]


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_replica_does_not_depend_on_the_others_nor_on_the_kind_of_engine() -> None:
    settings = ReplicaSettings(temperature=300.0, time=0.15, time_step=0.5, relax=False, stride=100)
    engines = (PotentialEngine(oracles.Morse()), closed_form_engines.ClosedForm(oracles.Morse()))
    together, alone = (
        advance(begin(settings, tetrahedron(), oracles.rhombus(), seeds=(0, 1)), engines[0], settings),
        advance(begin(settings, tetrahedron(), seeds=(1,)), engines[1], settings),
    )
    assert {run.replica.id for run in together} == {
        f"{name}/seed-{k}" for name in ("four", oracles.rhombus().id) for k in (0, 1)
    }
    (same,) = (run for run in together if run.replica.id == "four/seed-1")
    np.testing.assert_allclose(same.positions, alone[0].positions, atol=1e-9)
    assert same.trajectory().steps.tolist() == [0, 100, 200, 300]
    np.testing.assert_allclose(same.trajectory().positions[-1], same.positions)
    exact = oracles.Morse().exact(tetrahedron().with_positions(same.trajectory().positions[2]))
    assert same.trajectory().energies[2] == pytest.approx(exact.energy)
    np.testing.assert_allclose(same.trajectory().forces[2], -exact.gradient, atol=1e-9)
    other = next(run for run in together if run.replica.id == "four/seed-0")
    assert np.abs(same.positions - other.positions).max() > 1e-3
    assert same.row(settings)["steps"] == 300


@pytest.mark.slow
def test_the_temperature_of_the_thermostat() -> None:
    """60 replicas of four atoms, 9 squares of velocities each, 0.5 ps after 0.3 ps of equilibration: at a friction of
    0.05/fs velocities are correlated over some 20 fs, so that about 60 · 25 · 9 squares are independent, a relative
    error of 1.2 %; held to 4.5 %."""
    settings = ReplicaSettings(temperature=80.0, time=0.8, time_step=0.5, friction=0.05, relax=False, stride=0)
    runs = advance(begin(settings, tetrahedron(), seeds=range(60)), PotentialEngine(oracles.Morse()), settings)
    assert all(run.failure is None for run in runs)
    late = [np.array(run.samples)[60:, 2].mean() for run in runs]
    assert np.mean(late) == pytest.approx(80.0, rel=0.045)
    assert np.std(late) / np.sqrt(60) < 0.025 * 80.0
    assert not runs[0].snapshots


def test_initial_velocities_have_the_temperature_and_no_drift() -> None:
    settings = ReplicaSettings(temperature=300.0)
    runs = begin(settings, tetrahedron(), seeds=range(400))
    masses = tetrahedron().atomic_masses
    kinetic = [0.5 * np.sum(masses[:, None] * run.velocities**2) for run in runs]
    assert np.mean(kinetic) == pytest.approx(4.5 * BOLTZMANN * 300.0, rel=4.5 * np.sqrt(2 / (400 * 9)))
    assert max(np.abs(masses @ run.velocities).max() for run in runs) < 1e-12


def test_survivors_and_failures_side_by_side() -> None:
    """The bonds of a compressed structure swing back and become too short; its neighbors in the batch go on."""
    settings = ReplicaSettings(temperature=50.0, time=0.25, time_step=0.5, stride=50, **NVE)
    tight = tetrahedron("tight").with_positions(0.85 * tetrahedron().positions, id="tight")
    runs = advance(begin(settings, tetrahedron(), tight), PotentialEngine(oracles.Morse()), settings)
    by_name = {run.replica.start.id: run for run in runs}
    assert by_name["four"].failure is None
    failed = by_name["tight"]
    assert failed.failure is not None
    assert failed.failure.reason is FailureReason.COLLISION
    assert 0 < failed.step < BLOCK
    assert failed.trajectory().steps[-1] == failed.step  # the geometry of the failure
    lengths = np.linalg.norm(failed.positions[:, None] - failed.positions, axis=-1)
    assert lengths[~np.eye(4, dtype=bool)].min() < 0.6 * 2 * 0.76
    row = failed.row(settings)
    assert (row["survived"], row["reason"], row["time"]) == (False, "collision", failed.step * 0.0005)
    survivor = by_name["four"].row(settings)
    assert (survivor["survived"], survivor["reason"], survivor["time"]) == (True, None, 0.25)
    assert abs(survivor["energy_drift"]) < 1e-3


class Tired(Engine):
    """Fails for one structure after some evaluations."""

    name, level, settings = "tired", "tired", MappingProxyType({})

    def __init__(self, left: int) -> None:
        self.left, self.oracle = left, oracles.Morse()

    def compute(self, structure, request=None):
        self.left -= structure.id == "tired"
        if structure.id == "tired" and self.left < 0:
            raise EngineError("the license ran out")
        return closed_form_engines.ClosedForm(self.oracle).compute(structure, request)


def test_an_engine_that_fails_in_one_replica() -> None:
    settings = ReplicaSettings(temperature=50.0, time=0.05, time_step=0.5, **NVE)
    for left, reason in ((20, FailureReason.ENGINE_FAILED), (0, FailureReason.NOT_STARTED)):
        starts = (tetrahedron("tired"), tetrahedron("fresh"))
        runs = {run.replica.start.id: run for run in advance(begin(settings, *starts), Tired(left), settings)}
        assert runs["fresh"].failure is None
        assert runs["tired"].failure == Failure(reason, "the license ran out")
        assert runs["tired"].step == left
        assert (runs["tired"].row(settings)["time"] is None) == (not left)


@pytest.mark.slow
def test_a_stored_state_continues_as_if_nothing_had_happened() -> None:
    settings = ReplicaSettings(temperature=300.0, time=0.35, time_step=0.5, relax=False, stride=70)
    engine = PotentialEngine(oracles.Morse())
    (whole,) = advance(begin(settings, tetrahedron()), engine, settings)
    kept = []

    def stop(live, steps):
        kept.extend(copy.deepcopy(list(live)))
        return False

    assert not advance(begin(settings, tetrahedron()), engine, settings, on_block=stop)
    assert [run.step for run in kept] == [BLOCK]
    newcomer = begin(settings, tetrahedron(), seeds=(1,))  # joins at another step
    runs = advance([*kept, *newcomer], engine, settings)
    (continued,) = (run for run in runs if run.replica.seed == 0)
    np.testing.assert_allclose(continued.positions, whole.positions, atol=1e-9)
    assert continued.trajectory().steps.tolist() == whole.trajectory().steps.tolist()
    assert len(continued.samples) == len(whole.samples)
    np.testing.assert_allclose(np.array(continued.samples), np.array(whole.samples), atol=1e-8)
    assert continued.row(settings).keys() == whole.row(settings).keys()


def test_batches_of_limited_size_take_up_replicas_one_after_the_other() -> None:
    settings = ReplicaSettings(temperature=100.0, time=0.02, time_step=0.5, relax=False, stride=0)
    sizes = []
    runs = begin(settings, tetrahedron(), seeds=range(5))
    engine = PotentialEngine(oracles.Morse())
    done = advance(runs, engine, settings, max_atoms=8, on_block=lambda live, steps: not sizes.append(steps))
    assert sizes == [80, 80, 40]
    assert [run.replica.seed for run in done] == list(range(5))


# --- starts -----------------------------------------------------------------------------------------------------------


def test_the_start_is_the_minimum_of_the_engine_or_a_reply() -> None:
    engine, settings = PotentialEngine(oracles.Morse()), ReplicaSettings()
    near = tetrahedron().with_positions(1.05 * tetrahedron().positions, id="near")
    found = starting_geometry(near, engine, settings)
    assert isinstance(found, Structure)
    assert found.id == "near"
    np.testing.assert_allclose(np.linalg.norm(found.positions[0] - found.positions[1]), 1.1, atol=1e-3)
    assert starting_geometry(near, engine, ReplicaSettings(relax=False)) is near
    for start, reason in (
        (Structure([6, 6], [[0, 0, 0], [0.5, 0, 0]]), FailureReason.NOT_STARTED),
        (Structure([6], [[0, 0, 0]]), FailureReason.NOT_STARTED),
        (Structure([6, 6], [[0, 0, 0], [2.4, 0, 0]]), FailureReason.BONDS_CHANGED),
    ):
        failure = starting_geometry(start, engine, settings)
        assert isinstance(failure, Failure)
        assert failure.reason is reason
    failure = starting_geometry(near, engine, ReplicaSettings(steps=1))
    assert isinstance(failure, Failure)
    assert failure.reason is FailureReason.NOT_RELAXED
    assert not failure.reason.counted
    # A symmetric start relaxes to a saddle point, from which a ramp would slide down.
    line = Structure([6] * 3, [[0, 0, 0], [1.15, 0, 0], [2.3, 0, 0]], id="line")
    assert isinstance(starting_geometry(line, engine, settings), Structure)
    failure = starting_geometry(line, engine, ReplicaSettings(ramp="fast"))
    assert isinstance(failure, Failure)
    assert failure.detail == "C0-C2 formed"
    failure = starting_geometry(near.with_positions(near.positions, id="tired"), Tired(0), settings)
    assert failure == Failure(FailureReason.NOT_STARTED, "the license ran out")
