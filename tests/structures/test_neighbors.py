"""Neighbor lists against all pairs and images by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesse.errors import GeometryError
from hesse.structures import Structure, find_neighbors
from oracles import image_pairs, molecule

Pairs = list[tuple[int, int, float, float, float]]


def found(s: Structure, cutoff: float) -> Pairs:
    pairs = s.neighbors(cutoff)
    vectors = s.positions[pairs.neighbors] + pairs.cell_shifts @ s.cell - s.positions[pairs.centers]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), pairs.distances, atol=1e-9)
    assert (np.diff(pairs.centers) >= 0).all()
    np.testing.assert_array_equal(np.bincount(pairs.centers, minlength=len(s)), pairs.counts)
    return as_sorted(zip(pairs.centers, pairs.neighbors, vectors, strict=True))


def expected(s: Structure, cutoff: float) -> Pairs:
    if not s.periodic:
        return as_sorted(image_pairs(s, cutoff))
    # Open directions get a vector, so that the reference can compute distances of lattice planes.
    box = s.cell.copy()
    for k in range(3):
        if not s.pbc[k]:
            box[k] = 0.0
    normals = np.linalg.svd(box[list(s.pbc)])[2][sum(s.pbc) :]
    box[[k for k in range(3) if not s.pbc[k]]] = 100.0 * normals
    return as_sorted(image_pairs(Structure(s.numbers, s.positions, cell=box, pbc=s.pbc), cutoff))


def as_sorted(pairs: object) -> Pairs:
    return sorted((int(i), int(j), *np.round(v, 6).tolist()) for i, j, v in pairs)  # type: ignore[attr-defined]


def same(got: Pairs, want: Pairs) -> None:
    assert [p[:2] for p in sorted(got)] == [p[:2] for p in sorted(want)]
    np.testing.assert_allclose(np.array([p[2:] for p in got]), np.array([p[2:] for p in want]), atol=1e-5)


@given(
    seed=st.integers(0, 10**6),
    atoms=st.integers(1, 6),
    pbc=st.sampled_from(list(itertools.product([False, True], repeat=3))),
    cutoff=st.floats(1.0, 6.0),
    size=st.floats(2.0, 5.0),
    skew=st.floats(0.0, 0.9),
)
def test_all_pairs_and_images_are_found(
    seed: int, atoms: int, pbc: tuple[bool, bool, bool], cutoff: float, size: float, skew: float
) -> None:
    rng = np.random.default_rng(seed)
    cell = size * (np.eye(3) + skew * np.tril(rng.uniform(-1, 1, (3, 3)), -1))
    # Atoms inside and outside the cell.
    positions = rng.uniform(-0.5, 1.5, (atoms, 3)) @ cell
    s = Structure(np.ones(atoms, dtype=int), positions, cell=cell, pbc=pbc)
    want = expected(s, cutoff)
    lengths = [np.linalg.norm(p[2:]) for p in want]
    if lengths and np.abs(np.array(lengths) - cutoff).min() < 1e-4:
        return  # too close to the cutoff: rounding decides
    same(found(s, cutoff), want)


def test_a_cutoff_larger_than_the_cell_finds_images_of_the_atom_itself() -> None:
    s = Structure([1], [[0, 0, 0]], cell=2.0 * np.eye(3), pbc=(True, True, True))
    assert len(s.neighbors(2.5).centers) == 6
    assert len(s.neighbors(3.0).centers) == 6 + 12


def test_both_algorithms_for_molecules_agree() -> None:
    large = molecule(80, 3)
    same(found(large, 3.0), as_sorted(image_pairs(large, 3.0)))


def test_neighbor_lists_are_cached() -> None:
    s = molecule(5, 0)
    assert s.neighbors(4.0) is s.neighbors(4.0)


def test_a_cutoff_of_zero_lists_no_pairs() -> None:
    """The cutoff of a potential without interactions, for open and periodic structures."""
    for pbc in ((False,) * 3, (True,) * 3):
        pairs = find_neighbors(np.eye(3), 5.0 * np.eye(3), pbc, 0.0)
        assert len(pairs.centers) == len(pairs.cell_shifts) == len(pairs.distances) == 0
        assert pairs.counts.tolist() == [0, 0, 0]


@pytest.mark.parametrize("cutoff", [-1.0, np.nan, np.inf])
def test_a_cutoff_is_a_positive_number(cutoff: float) -> None:
    with pytest.raises(GeometryError, match="cutoff"):
        find_neighbors(np.zeros((1, 3)), np.zeros((3, 3)), (False, False, False), cutoff)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (np.diag([1e6, 5.0, 5.0]), "long"),
        (np.diag([0.01, 0.01, 0.01]), "placeholder"),
        (np.diag([1.0, 1.0, 0.05]), "placeholder"),
        (np.array([[5.6, 0, 0], [0, 5.6, 0.008], [6.0, 2.0, 0]]), "placeholder"),
    ],
)
def test_cells_beyond_native_code_are_refused(cell: np.ndarray, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        find_neighbors(np.array([[0.0, 0, 0], [1.0, 1, 1]]), cell, (True, True, True), 3.0)


def test_coordinates_and_lattice_vectors_are_bounded() -> None:
    with pytest.raises(GeometryError, match="coordinates of up to 2e\\+06"):
        Structure([1], [[2e6, 0, 0]])
    for wrong in (np.nan, np.inf, 1e7):
        with pytest.raises(GeometryError, match="lattice vectors"):
            Structure([1], [[0.0, 0, 0]], cell=np.diag([5.0, 5.0, wrong]))
