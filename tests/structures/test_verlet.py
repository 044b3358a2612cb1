"""Neighbor lists with a skin compared with new searches, along trajectories chosen to break them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from hesse.deploy import VerletNeighborList
from hesse.errors import ConfigError, GeometryError
from hesse.structures import Batch, Structure, collate

CUTOFF = 4.0
Trajectory = Callable[[Structure, np.random.Generator], Iterator[Structure]]


def pairs_of(batch: Batch) -> list[tuple[int, int, float]]:
    """Every pair with its length: what a potential sees, whatever cell the atoms stand in."""
    lengths = batch.neighbor_vectors().norm(dim=-1)
    atoms = torch.arange(len(batch.numbers))[:, None].expand_as(lengths)
    tracked = zip(
        atoms[batch.neighbor_mask].tolist(),
        batch.neighbors[batch.neighbor_mask].tolist(),
        lengths[batch.neighbor_mask].tolist(),
        strict=True,
    )
    return sorted((i, j, round(r, 9)) for i, j, r in tracked)


def closest(batch: Batch) -> float:
    return min((r for _, _, r in pairs_of(batch)), default=np.inf)


def moved_to(s: Structure, positions: np.ndarray, cell: np.ndarray | None = None) -> Structure:
    return Structure(s.numbers, positions, id=s.id, cell=s.cell if cell is None else cell, pbc=s.pbc)


def slab(directions: tuple[bool, bool, bool]) -> Structure:
    full = oracles.crystal(3, size=4.5, atoms=4)
    return Structure(full.numbers, full.positions, id="slab", cell=full.cell, pbc=directions)


def diffusion(s: Structure, rng: np.random.Generator) -> Iterator[Structure]:
    positions = s.positions
    for _ in range(30):
        positions = positions + 0.05 * rng.normal(size=positions.shape)
        yield moved_to(s, positions)


def wrapped_diffusion(s: Structure, rng: np.random.Generator) -> Iterator[Structure]:
    """Atoms are put back into other cells at every step."""
    periodic = np.array(s.pbc)
    for current in diffusion(s, rng):
        jumps = rng.integers(-2, 3, size=(len(s), 3)) * periodic
        yield moved_to(s, current.positions + jumps @ s.cell)


def breathing(s: Structure, rng: np.random.Generator) -> Iterator[Structure]:
    """Cells that swell, shear and turn with their atoms, as at constant pressure, and atoms that move within."""
    positions, cell = s.positions, s.cell
    for _ in range(30):
        strain = np.eye(3) + 0.005 * rng.normal(size=(3, 3))
        positions, cell = positions @ strain + 0.02 * rng.normal(size=positions.shape), cell @ strain
        if s.periodic and abs(np.linalg.det(cell)) < 30:  # not smaller than a few atoms need
            positions, cell = 1.3 * positions, 1.3 * cell
        yield moved_to(s, positions, cell)


def cell_alone(s: Structure, rng: np.random.Generator) -> Iterator[Structure]:
    """The cell changes under atoms that stay where they are."""
    for _ in range(30):
        yield moved_to(s, s.positions, s.cell @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))))


STARTS = {
    "molecule": oracles.molecule(14, 1),
    "large molecule": oracles.molecule(70, 1),
    "crystal": oracles.crystal(1),
    "wide crystal": oracles.crystal(2, size=7.0, atoms=4),
    "slab": slab((True, True, False)),
    "wire": slab((False, True, False)),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
@pytest.mark.parametrize("trajectory", [diffusion, wrapped_diffusion, breathing, cell_alone])
def test_pairs_along_a_trajectory_are_those_of_new_searches(start: Structure, trajectory: Trajectory) -> None:
    neighbors, checked = VerletNeighborList(CUTOFF, 0.8), 0
    for current in trajectory(start, np.random.default_rng(7)):
        fresh = collate([current], CUTOFF)
        if closest(fresh) < 0.31:
            continue  # random walks run into each other
        tracked = neighbors.batch(current, dtype=torch.float64)
        assert pairs_of(tracked) == pairs_of(fresh)
        checked += 1
    assert checked > 10
    assert neighbors.n_builds < checked, "the skin saved no search"


@given(seed=st.integers(0, 10**6), skin=st.floats(0.01, 2.0), size=st.floats(2.5, 8.0), stretch=st.floats(0.0, 0.3))
def test_pairs_after_any_displacement_are_those_of_a_new_search(
    seed: int, skin: float, size: float, stretch: float
) -> None:
    rng = np.random.default_rng(seed)
    start = oracles.crystal(seed, size=size)
    neighbors = VerletNeighborList(CUTOFF, skin)
    neighbors.batch(start, dtype=torch.float64)
    strain = np.eye(3) + stretch * rng.normal(size=(3, 3))
    positions = (start.positions + 0.2 * skin * rng.normal(size=(3, 3))) @ strain
    moved = moved_to(start, positions, start.cell @ strain)
    fresh = collate([moved], CUTOFF)
    if abs(np.linalg.det(moved.cell)) < 5 or closest(fresh) < 0.31:
        return
    assert pairs_of(neighbors.batch(moved, dtype=torch.float64)) == pairs_of(fresh)


def test_without_displacement_the_batch_equals_a_collated_one() -> None:
    current = oracles.molecule(12, 4)
    tracked, fresh = VerletNeighborList(CUTOFF, 1.0).batch(current, dtype=torch.float64), collate([current], CUTOFF)
    for name in ("numbers", "positions", "neighbors", "neighbor_mask", "structure_index", "rng_keys"):
        assert torch.equal(getattr(tracked, name), getattr(fresh, name))


def test_the_rule_of_half_the_skin() -> None:
    start = oracles.molecule(6, 0)
    neighbors = VerletNeighborList(CUTOFF, 1.0)
    for shift, builds in ((0.0, 1), (0.49, 1), (0.51, 2), (0.51, 2), (0.98, 2), (1.02, 3)):
        positions = start.positions.copy()
        positions[2] += [0, 0, shift]
        neighbors.batch(moved_to(start, positions), dtype=torch.float64)
        assert neighbors.n_builds == builds, shift


def test_deforming_the_cell_with_its_atoms_needs_no_new_list() -> None:
    start = oracles.crystal(2, size=9.0)
    neighbors = VerletNeighborList(CUTOFF, 1.0)
    neighbors.batch(start, dtype=torch.float64)
    # Stretching moves atoms by more than half the skin, but no pair comes closer.
    neighbors.batch(moved_to(start, 1.2 * start.positions, 1.2 * start.cell), dtype=torch.float64)
    assert neighbors.n_builds == 1
    # cutoff/(cutoff + skin) = 0.8 is as far as shrinking may go.
    neighbors.batch(moved_to(start, 0.81 * start.positions, 0.81 * start.cell), dtype=torch.float64)
    assert neighbors.n_builds == 1
    neighbors.batch(moved_to(start, 0.79 * start.positions, 0.79 * start.cell), dtype=torch.float64)
    assert neighbors.n_builds == 2


def test_other_atoms_or_periodicity_trigger_a_new_list() -> None:
    start = oracles.crystal(0)
    neighbors = VerletNeighborList(CUTOFF, 1.0)
    others = [
        start,
        Structure(start.numbers[::-1], start.positions, cell=start.cell, pbc=start.pbc),
        Structure(start.numbers, start.positions, cell=start.cell, pbc=(True, True, False)),
        oracles.molecule(5, 0),
    ]
    for builds, other in enumerate(others, start=1):
        batch = neighbors.batch(other, dtype=torch.float64)
        assert neighbors.n_builds == builds
        assert pairs_of(batch) == pairs_of(collate([other], CUTOFF))


def test_atoms_far_outside_of_the_cell_keep_their_digits_in_float32() -> None:
    start = oracles.crystal(5)
    away = moved_to(start, start.positions + np.array([4000, -7000, 1000]) @ start.cell)
    near = collate([start], CUTOFF)
    batch = VerletNeighborList(CUTOFF, 1.0).batch(away, dtype=torch.float32)
    assert [p[:2] for p in pairs_of(batch)] == [p[:2] for p in pairs_of(near)]
    assert np.allclose([p[2] for p in pairs_of(batch)], [p[2] for p in pairs_of(near)], atol=1e-5)


def test_without_skin_every_step_searches() -> None:
    neighbors = VerletNeighborList(CUTOFF, 0.0)
    for _ in range(3):
        neighbors.batch(oracles.molecule(5, 0), dtype=torch.float64)
    assert neighbors.n_builds == neighbors.n_batches == 3


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_invalid_skins(skin: float) -> None:
    with pytest.raises(ConfigError, match="skin"):
        VerletNeighborList(CUTOFF, skin)


def test_the_error_names_atoms_that_are_too_close() -> None:
    with pytest.raises(GeometryError, match=r"atoms [01] and [01] are 0\.100 Å apart"):
        VerletNeighborList(CUTOFF, 1.0).batch(
            Structure([1, 1], [[0, 0, 0], [0, 0, 0.1]], id="pair"), dtype=torch.float64
        )


def test_a_lone_atom_and_a_cutoff_of_zero() -> None:
    for cutoff, structure in ((CUTOFF, oracles.atom()), (0.0, oracles.molecule(4, 0))):
        batch = VerletNeighborList(cutoff, 1.0).batch(structure, dtype=torch.float64)
        assert not batch.neighbor_mask.any()
