"""The same geometry twice: found whatever its rotation and order of atoms, and never on both sides of a split."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

import hesse
from hesse.datasets import Dataset, open_dataset, write_dataset
from hesse.datasets.quality.duplicates import first_with_geometry, merged_groups, same_geometry_in
from hesse.structures import Structure
from oracles import Morse, labeled, molecules


def first(structures: list[Structure]) -> list[int]:
    return first_with_geometry(lambda: [(np.arange(len(structures)), structures)], len(structures)).tolist()


def turned(structure: Structure, seed: int, *, noise: float = 0.0, shuffle: bool = True) -> Structure:
    """Another orientation, place, order of atoms and rounding."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(structure)) if shuffle else np.arange(len(structure))
    positions = structure.positions @ Rotation.random(random_state=seed).as_matrix() + rng.normal(size=3) * 5
    positions = positions + rng.uniform(-noise, noise, positions.shape)
    return replace(structure, id=f"turned-{seed}", positions=positions[order], numbers=structure.numbers[order])


@pytest.mark.parametrize("n_atoms", [1, 2, 5, 80])
def test_rotated_and_reordered_molecules_are_the_same(n_atoms: int) -> None:
    (one,) = molecules([n_atoms])
    assert first([one, turned(one, 1), turned(one, 2, noise=2e-4)]) == [0, 0, 0]
    if n_atoms > 1:
        moved = one.positions.copy()
        moved[-1] += 0.01 * (moved[-1] - moved[0])
        assert first([one, one.with_positions(moved, id="moved")]) == [0, 1]


def test_what_differs_is_not_the_same() -> None:
    (one,) = molecules([5])
    others = [
        replace(one, id="cation", charge=1),
        replace(one, id="triplet", multiplicity=3),
        replace(one, id="swapped", positions=one.positions[::-1]),
        replace(one, id="crystal", pbc=(True, True, True), cell=np.eye(3) * 20),
        replace(one, id="larger crystal", pbc=(True, True, True), cell=np.eye(3) * 20.01),
        replace(one, id="slab", pbc=(True, True, False), cell=np.eye(3) * 20),
    ]
    assert first([one, *others]) == list(range(7))


def test_a_turned_methyl_group_is_another_geometry() -> None:
    """All distances to the centroid are the same."""
    ethane = hesse.from_ase(molecule("C2H6"))
    axis = ethane.positions[1] - ethane.positions[0]
    turn = Rotation.from_rotvec(np.radians(5) * axis / np.linalg.norm(axis))
    positions = ethane.positions.copy()
    positions[5:] = turn.apply(positions[5:] - positions[0]) + positions[0]
    assert first([ethane, ethane.with_positions(positions, id="turned")]) == [0, 1]


def test_crystals_are_compared_up_to_lattice_vectors() -> None:
    rng = np.random.default_rng(0)
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    one = hesse.from_ase(atoms)
    wrapped = one.positions + rng.integers(-1, 2, one.positions.shape) @ one.cell
    moved = one.positions.copy()
    moved[3, 0] += 0.02
    structures = [
        one,
        one.with_positions(wrapped, id="wrapped"),
        one.with_positions(moved, id="moved"),
        replace(one, id="strained", cell=one.cell * 1.001),
        one.with_positions(one.positions + rng.uniform(-2e-4, 2e-4, one.positions.shape), id="rounded"),
    ]
    assert first(structures) == [0, 0, 2, 3, 0]


def test_a_fine_scan_does_not_become_one_group() -> None:
    (one,) = molecules([2])
    scan = [one.with_positions(one.positions * (1 + 4e-4 * k), id=f"{k}") for k in range(200)]
    assert len(set(first(scan))) > 50


def test_many_copies_and_many_frames_take_little_time() -> None:
    (one,) = molecules([6])
    rng = np.random.default_rng(0)
    frames = [one.with_positions(one.positions + rng.normal(scale=0.1, size=(6, 3)), id=f"{k}") for k in range(1500)]
    copies = [replace(one, id=f"copy-{k}") for k in range(1500)]
    start = time.process_time()
    assert first([*frames, *copies]) == [*range(1500), *[1500] * 1500]
    assert time.process_time() - start < 2.0


def test_groups_that_share_a_geometry_become_one() -> None:
    assert merged_groups(["c", "b", "a", "d", "b"], np.array([0, 0, 1, 3, 4])) == ["a", "a", "a", "d", "a"]


@pytest.fixture(scope="module")
def doubled() -> Dataset:
    """Every geometry twice: from an optimization, and turned from a frequency job."""
    once = molecules([3, 4, 5, 4, 3] * 8, seed=3)
    return labeled(Morse(), [*once, *(turned(s, k) for k, s in enumerate(once))])


@pytest.mark.parametrize("by_group", [True, False])
def test_no_split_leaks(doubled: Dataset, by_group: bool, tmp_path: Path) -> None:
    assert doubled.split_groups()[1] == 40
    parts = doubled.split(0.5, 0.5, seed=1, by_group=by_group)
    for part in parts:
        indices = {doubled.ids.index(name) % 40 for name in part.ids}
        assert len(part) == 2 * len(indices)
    write_dataset(tmp_path / "d.h5", doubled)
    streamed = open_dataset(tmp_path / "d.h5", memory_mib=0.12)
    assert not isinstance(streamed, Dataset)
    assert [p.ids for p in streamed.split(0.5, 0.5, seed=1, by_group=by_group)] == [p.ids for p in parts]


def test_a_part_that_stays_empty_says_why(doubled: Dataset) -> None:
    with pytest.raises(hesse.errors.RequestError, match="1 of them repeat the geometry of another"):
        doubled.select([0, 40]).split(0.5, 0.5)


def test_geometries_of_another_data_set_are_found(tmp_path: Path) -> None:
    """In memory and in files; a geometry that is twice in one of the two and not in the other is not shared."""
    training = labeled(Morse(), molecules([3, 4, 5, 4, 3] * 12, seed=3))
    (fresh,) = molecules([4], seed=9)
    others = [turned(training.structures[k], k) for k in (7, 2, 40)]
    validation = labeled(Morse(), [fresh, *others, turned(fresh, 99)])
    expected = [-1, 7, 2, 40, -1]
    write_dataset(tmp_path / "t.h5", training)
    streamed = open_dataset(tmp_path / "t.h5", memory_mib=0.12)
    assert not isinstance(streamed, Dataset)
    for data in (training, streamed):
        found = same_geometry_in(validation.geometry_parts, len(validation), data.geometry_parts, len(data))
        assert found.tolist() == expected
