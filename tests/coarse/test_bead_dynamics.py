"""Langevin dynamics of periodic boxes of beads: a gas against closed forms, state points, thousands of beads."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import oracles
from hesse.coarse import frames_by_state_point, radial_distribution, run_beads, virial_pressures
from hesse.coarse.bead_contacts import closest_contacts
from hesse.coarse.bead_dynamics import BAR, repeated
from hesse.curvature import evaluate
from hesse.errors import ExecutionError, GeometryError, RequestError
from hesse.models import BeadBond, BeadMolecule, BeadPrior, BeadPriorConfig, PairRepulsion
from hesse.structures import Structure, bead_number
from hesse.units import BOLTZMANN

ARGON = {"epsilon": 0.01032, "sigma": 3.405}  # eV, Å
SIGMA3 = ARGON["sigma"] ** 3


def argon(cutoff: float = 8.5) -> oracles.LennardJones:
    return oracles.LennardJones(**ARGON, cutoff=cutoff)


def box(reduced_density: float, side: int, tag: str = "120K 1.000g/cm3", **fields: object) -> Structure:
    """Beads on a simple cubic lattice."""
    spacing = (SIGMA3 / reduced_density) ** (1 / 3)
    grid = spacing * np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    fields = {"pbc": True, "cell": side * spacing * np.eye(3), "id": f"box-{tag}"} | fields
    return Structure([bead_number("AR")] * len(grid), grid, masses=[39.95] * len(grid), tag=tag, **fields)


def collapsed() -> Structure:
    """Two beads at the same place."""
    start = box(0.7, 3)
    positions = np.array(start.positions)
    positions[1] = positions[0]
    return start.with_positions(positions)


def dimers(length: float = 1.12) -> list[Structure]:
    """Two frames of molecules of two bonded beads, 4 Å apart from each other."""
    places = 4.0 * np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = np.stack([places, places + np.array([length, 0, 0])], axis=1).reshape(-1, 3)
    numbers = [bead_number("C1"), bead_number("O1")] * 8
    fields = {"cell": 8 * np.eye(3), "pbc": True, "masses": [12.0, 16.0] * 8, "tag": "200K"}
    return [Structure(numbers, positions * scale, id=f"m/{k}", **fields) for k, scale in enumerate((1.0, 0.99))]


def bonded(length: float) -> BeadPrior:
    bond = BeadBond(beads=(0, 1), length=length, stiffness=20.0)
    molecule = BeadMolecule(types=("C1", "O1"), bonds=(bond,))
    return BeadPrior(BeadPriorConfig(molecules=(molecule,)), (bead_number("C1"), bead_number("O1")))


def test_bonded_beads_may_be_as_close_as_in_the_data() -> None:
    options = {"time": 0.1, "time_step": 1.0, "stride": 10, "quiet": True}
    assert ("C1", "O1", 1.108) in closest_contacts(dimers())
    (row,) = run_beads(dimers(), bonded(1.12), **options).rows
    assert row["survived"], row
    (row,) = run_beads(dimers(), bonded(0.4), **options).rows
    assert row["reason"] == "collision"
    assert re.search(r"C1\(\d+\) and O1\(\d+\) are 0\.[3-5]\d Å apart", row["detail"])


def test_state_points_have_their_temperatures_and_frames_their_tags(tmp_path: Path) -> None:
    starts = [box(0.7, 3), box(0.6, 3, "90K", id="unused"), box(0.6, 3, "90K", id="x/9")]
    options = {"seeds": 2, "time": 1.0, "time_step": 10.0, "stride": 20, "quiet": True}
    run = run_beads(starts, argon(6.0), tmp_path / "out.h5", **options)
    points = (starts[0], starts[2])
    assert [(row["state_point"], row["seed"]) for row in run.rows] == [(p.tag, seed) for p in points for seed in (0, 1)]
    for row in run.rows:
        kelvin = float(row["state_point"].split("K")[0])
        assert row["survived"], row
        assert row["temperature"] == kelvin
        assert row["mean_temperature"] == pytest.approx(kelvin, rel=0.3)  # the lattice melts
    assert run.bead_steps_per_second > 0
    frames = frames_by_state_point(run.dataset)
    assert [(name, len(f), len(np.unique(f.runs))) for name, f in frames.items()] == [(p.tag, 12, 2) for p in points]
    assert run.dataset.metadata["frame_time"] == "0.2 ps"
    again = run_beads(starts, argon(6.0), tmp_path / "out.h5", **options)
    assert again.bead_steps_per_second is None  # nothing was computed
    assert np.array_equal(again.dataset.structures[7].positions, run.dataset.structures[7].positions)


@pytest.mark.slow
def test_a_dilute_gas_has_the_closed_forms_of_distribution_and_pressure() -> None:
    density, kelvin = 0.03, 240.0
    start = box(density, 4, f"{kelvin:g}K")
    run = run_beads(start, argon(), seeds=12, time=14.4, time_step=12.0, friction=0.0003, stride=60, quiet=True)
    frames = frames_by_state_point(run.dataset, frame_time=0.72)[start.tag].without_start(5.0)
    rdf = radial_distribution(frames, r_max=12.0, bins=24)

    def phi(r: np.ndarray) -> np.ndarray:
        six = (ARGON["sigma"] / r) ** 6
        return np.where(r < 8.5, 4 * ARGON["epsilon"] * (six * six - six), 0.0)

    inside = rdf.centers[:, None] + rdf.width * np.linspace(-0.49, 0.49, 50)
    factors = np.exp(-phi(inside) / (BOLTZMANN * kelvin))
    expected = np.average(factors, axis=1, weights=inside**2)
    seen = (rdf.centers > 3.2) & (rdf.centers < 11.0)
    low, high = rdf.band()
    scatter = (high - low)[seen] / (2 * 1.96)
    deviations = (rdf.mean - expected)[seen]
    assert abs(deviations.mean()) < 0.05
    assert np.sqrt(np.mean((deviations / np.maximum(scatter, 0.02)) ** 2)) < 2.0
    r = np.linspace(0.5, 8.5, 20_000)
    b2 = -2 * np.pi * np.trapezoid((np.exp(-phi(r) / (BOLTZMANN * kelvin)) - 1) * r**2, r)
    number = density / SIGMA3
    pressures = virial_pressures([s for s in run.dataset.structures if int(s.id[-7:]) > 400], argon())
    ideal = BAR * number * BOLTZMANN * kelvin
    # A sharp cutoff has forces only inside: the jump of φ at 8.5 Å adds to the pressure of the closed form.
    jump = BAR * 2 / 3 * np.pi * number**2 * 8.5**3 * float(phi(np.array(8.4999)))
    assert b2 * number == pytest.approx(-0.05, abs=0.03)
    assert pressures.mean() == pytest.approx(ideal * (1 + b2 * number) + jump, abs=0.02 * ideal)


def test_the_virial_pressure_is_the_slope_of_the_energy_with_volume() -> None:
    rng = np.random.default_rng(0)
    start = box(0.8, 3)
    start = start.with_positions(start.positions + rng.normal(0, 0.2, start.positions.shape))
    (pressure,) = virial_pressures([start], argon(), temperature=100.0)
    energies = []
    for stretch in (1.0 + 1e-5, 1.0 - 1e-5):
        scaled = Structure(
            start.numbers, stretch * start.positions, cell=stretch * start.cell, pbc=True, masses=start.masses
        )
        energies.append(argon().exact(scaled).energy)
    volume = np.linalg.det(start.cell)
    static = -(energies[0] - energies[1]) / (volume * 6e-5)
    assert pressure == pytest.approx(BAR * (27 * BOLTZMANN * 100.0 / volume + static), rel=1e-5)


def test_a_repeated_box_is_the_same_crystal() -> None:
    small = box(0.7, 3)
    large = repeated(small, 2)
    assert len(large) == 8 * 27
    assert argon(6.0).exact(small).energy * 8 == pytest.approx(argon(6.0).exact(large).energy)
    assert repeated(small, 1) is small


@pytest.mark.slow
def test_thousands_of_beads_search_their_neighbors_rarely_and_keep_the_energy() -> None:
    pair = PairRepulsion(types=("AR", "AR"), taper=3.4, strength=0.1, width=0.4)
    spheres = BeadPrior(BeadPriorConfig(pairs=(pair,)), (bead_number("AR"),))
    run = run_beads(box(0.8, 7), spheres, repeat=2, time=0.4, time_step=5.0, stride=40, temperature=100.0, quiet=True)
    (row,) = run.rows
    assert len(run.dataset.structures[0]) == 8 * 343
    assert row["survived"], row
    assert abs(row["energy_drift"]) < 8 * 343 * 1e-4  # eV/ps
    assert run.bead_steps_per_second > 0


def test_beads_side_by_side_are_not_bonded_and_may_part() -> None:
    """Water beads are 2.6 Å apart, within the distance of bonds between atoms of such radii."""
    close = oracles.LennardJones(epsilon=0.0005, sigma=2.2, cutoff=5.0)
    grid = 2.5 * np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    start = Structure([bead_number("W")] * 27, grid, cell=10 * np.eye(3), pbc=True, masses=[18.0] * 27, tag="300K")
    run = run_beads(start, close, time=1.0, time_step=5.0, stride=100, quiet=True)
    assert run.rows[0]["survived"], run.rows[0]
    moved = np.linalg.norm(run.dataset.structures[-1].positions - grid, axis=1)
    assert moved.max() > 2.0


@pytest.mark.parametrize(
    ("start", "options", "error", "words"),
    [
        (box(0.7, 3, ""), {}, RequestError, "the temperature of .*without a tag.* is not known"),
        (box(0.7, 3, "liquid"), {}, RequestError, 'temperature of "liquid" is not known'),
        (box(0.7, 3, pbc=False), {}, GeometryError, "needs a box that is periodic"),
        (box(0.7, 3), {"state_points": ["300K"]}, RequestError, "no state point \"300K\": there are '120K 1.000g/cm3'"),
        (box(0.7, 3), {"repeat": 0}, RequestError, "at least 1, got 0"),
        (collapsed(), {}, ExecutionError, r"not started: beads AR\(\d\) and AR\(\d\) collide \(0\.00 Å apart\)"),
    ],
)
def test_what_cannot_run_gets_a_reply(start: Structure, options: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        run_beads(start, argon(), time=0.1, quiet=True, **options)


def test_a_model_that_explodes_is_a_failed_run_with_its_reason() -> None:
    class Collapse(oracles.LennardJones):
        def phi(self, r: torch.Tensor) -> torch.Tensor:
            return -super().phi(r)

    run = run_beads(box(0.9, 3), Collapse(**ARGON, cutoff=8.0), time=5.0, time_step=10.0, stride=100, quiet=True)
    assert not run.rows[0]["survived"]
    assert run.rows[0]["reason"] in ("collision", "large force")


def test_all_state_points_share_one_compiled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than a short run: it happens once, not once per state point."""
    made = []

    def compiled(potential: oracles.LennardJones) -> object:
        made.append(potential)
        return partial(evaluate, potential)

    monkeypatch.setattr("hesse.engines.potential_engine.CompiledEvaluation", compiled)
    starts = [box(0.7, 3), box(0.6, 3, "90K")]
    run = run_beads(starts, argon(6.0), compile=True, time=0.02, time_step=10.0, quiet=True)
    assert [row["survived"] for row in run.rows] == [True, True]
    assert len(made) == 1


def test_the_speed_is_that_of_the_dynamics_without_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compiled(potential: oracles.LennardJones) -> object:
        def call(batch: object, request: object) -> object:
            if not calls:
                time.sleep(0.6)
            calls.append(batch)
            return evaluate(potential, batch, request)

        return call

    monkeypatch.setattr("hesse.engines.potential_engine.CompiledEvaluation", compiled)
    began = time.perf_counter()
    run = run_beads(box(0.7, 3), argon(6.0), compile=True, time=0.2, time_step=10.0, stride=0, quiet=True)
    seconds = time.perf_counter() - began - 0.6
    assert run.rows[0]["steps"] == 20
    assert run.bead_steps_per_second > 27 * 20 / seconds
