"""The summary of training environments: invariance, false alarms and alarms, storage."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from ase.build import bulk, molecule

from hesse.structures import Structure, TrainingEnvironments, environment_sample, from_ase
from hesse.structures.environment_vectors import environment_vectors

NAMES = ("CH3OH", "CH3CHO", "C2H6", "C2H4", "CH3COOH", "H2CO", "HCOOH", "CH3CH2OH", "C3H8", "C3H6_D3h")


def rattled(name: str, amplitude: float, rng: np.random.Generator) -> Structure:
    atoms = molecule(name)
    positions = atoms.positions + rng.normal(0.0, amplitude, atoms.positions.shape)
    return Structure(atoms.numbers, positions, id=f"{name}/{rng.integers(10**9)}", group=name)


def thermal(seed: int, count: int) -> list[Structure]:
    rng = np.random.default_rng(seed)
    return [rattled(name, 0.05, rng) for name in NAMES for _ in range(count)]


@pytest.fixture(scope="module")
def summary() -> TrainingEnvironments:
    return TrainingEnvironments.from_structures(thermal(0, 8))


def test_vectors_do_not_depend_on_orientation_order_and_cell() -> None:
    rng = np.random.default_rng(1)
    s = rattled("CH3COOH", 0.1, rng)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(s))
    moved = Structure(s.numbers[order], (s.positions @ turn)[order] + 3.0)
    np.testing.assert_allclose(environment_vectors(moved), environment_vectors(s)[order], atol=1e-10)
    salt = bulk("NaCl", "rocksalt", 5.6)
    salt.rattle(0.1, seed=2)
    cell = environment_vectors(from_ase(salt))
    np.testing.assert_allclose(environment_vectors(from_ase(salt * (2, 2, 3))), np.tile(cell, (12, 1)), atol=1e-10)
    assert not environment_vectors(Structure([6], [[0, 0, 0]])).any()


@pytest.mark.parametrize("seed", range(3))
def test_new_samples_pass_and_distorted_ones_are_outside(summary: TrainingEnvironments, seed: int) -> None:
    held_out = thermal(seed + 10, 5)
    assert np.mean([summary.compare(s).outside for s in held_out]) <= 0.02
    rng = np.random.default_rng(seed)
    torn = [rattled(name, 0.35, rng) for name in NAMES for _ in range(5)]
    assert np.mean([summary.compare(s).outside for s in torn]) > 0.85
    pressed = [s.with_positions(0.8 * s.positions) for s in held_out]
    assert np.mean([summary.compare(s).outside for s in pressed]) > 0.9


def test_a_bond_and_an_element_that_the_data_do_not_have_are_named(summary: TrainingEnvironments) -> None:
    peroxide = summary.compare(from_ase(molecule("H2O2")))
    assert peroxide.outside
    assert "O0-O1 at 1.4" in peroxide.reason or "O1-O0 at 1.4" in peroxide.reason
    fluoride = summary.compare(from_ase(molecule("HF")))
    assert fluoride.grade == np.inf
    assert fluoride.reason == "the training data hold no F"


def test_crystals_and_single_geometries() -> None:
    rng = np.random.default_rng(0)

    def copper(amplitude: float, strain: float = 1.0, repeat: tuple[int, int, int] = (2, 2, 2)) -> Structure:
        atoms = bulk("Cu", cubic=True) * repeat
        atoms.set_cell(atoms.cell * strain, scale_atoms=True)
        atoms.positions += rng.normal(0.0, amplitude, atoms.positions.shape)
        return dataclasses.replace(from_ase(atoms), id=str(rng.integers(10**9)))

    summary = TrainingEnvironments.from_structures([copper(0.05) for _ in range(20)])
    assert not any(summary.compare(copper(0.05)).outside for _ in range(10))
    assert all(summary.compare(copper(0.05, strain)).outside for strain in (0.85, 1.2))
    large = copper(0.05, repeat=(4, 4, 4))
    assert not summary.compare(large).outside
    vacancy = Structure(large.numbers[1:], large.positions[1:], cell=large.cell, pbc=large.pbc)
    assert summary.compare(vacancy).outside
    single = TrainingEnvironments.from_structures([from_ase(molecule("C2H6"))])
    assert not single.compare(rattled("C2H6", 0.01, rng)).outside
    assert single.compare(rattled("C2H6", 0.4, rng)).outside
    with pytest.raises(ValueError, match="no structures"):
        TrainingEnvironments.from_structures([])


def test_the_text_is_small_and_gives_the_same_grades(summary: TrainingEnvironments) -> None:
    text = summary.to_text()
    assert len(text) < 25_000
    again = TrainingEnvironments.from_text(text)
    for s in thermal(5, 1):
        assert again.compare(s) == summary.compare(s)
    assert again.n_structures == 80


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"limit": 0.0},
        {"limit": float("nan")},
        {"elements": {"6": ["AAAA", "AAAA", "AAAA"]}},
        {"elements": {"x": []}},
        {"elements": 3},
        {"shortest": [[1, 2]]},
        {"structures": None},
    ],
)
def test_a_damaged_text_is_refused(summary: TrainingEnvironments, change: dict[str, object]) -> None:
    values = json.loads(summary.to_text()) | change
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        TrainingEnvironments.from_text(json.dumps(values))


def test_large_data_are_sampled_in_the_same_way_each_time() -> None:
    n_atoms = np.full(100_000, 30)
    chosen = environment_sample(n_atoms)
    assert chosen == environment_sample(n_atoms)
    assert 1000 < len(chosen) <= 2000
    assert n_atoms[chosen].sum() <= 40_000
    assert environment_sample(np.array([10**6, 10**6])) in ([0], [1])
    assert environment_sample(np.array([3, 4, 5])) == [0, 1, 2]
