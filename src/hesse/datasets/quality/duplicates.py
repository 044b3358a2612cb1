"""Structures with the same geometry, which would leak from training into validation data.

The same geometry twice has other ids (a double frequency job, two files of one campaign) and often another rotation or
order of atoms. Every structure is described by a few numbers that do not depend on these; a tree of them finds the few
candidates, whose interatomic distances are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hesse.structures import Structure, is_bead

__all__ = ["Parts", "first_with_geometry", "merged_groups", "same_geometry_in"]

_TOLERANCE: Final = 1e-3
"""Å; distances of the same geometry differ by less: files round positions to 1e-3 Å or better."""
Parts: TypeAlias = Callable[[], Iterable[tuple[NDArray[np.int64], Sequence[Structure]]]]
"""Structures in parts that fit into memory, with their indices; may be called twice."""

_INVARIANT_TOLERANCE: Final = 3 * _TOLERANCE
_N_INVARIANTS: Final = 6
_MAX_PAIRWISE_ATOMS: Final = 64
"""Above this number of atoms distances to four points are compared instead of all interatomic ones."""
_COUNT_BLOCK: Final = 1 << 16
_Description: TypeAlias = tuple[NDArray[np.float64] | None, NDArray[Any]]
_KEYS = np.random.default_rng(0).integers(1, 2**63, size=128, dtype=np.uint64)
"""A random number for each element; their sum identifies a composition."""
_BEAD_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Spreads the numbers of bead types, which are too large for a table, over 64 bits."""


def first_with_geometry(parts: Parts, count: int) -> NDArray[np.int64]:
    """Find the structures whose geometry is that of an earlier one.

    Two molecules have the same geometry if they have the same composition, charge and multiplicity, and all distances
    between atoms of each two elements agree within 1e-3 Å: rotations, translations, mirror images and the order of the
    atoms do not matter. Periodic structures have it if cells and positions (up to lattice vectors) agree within 1e-3 Å
    in the same order of atoms.

    Args:
        parts: gives the structures; it is called a second time for candidates, if there are any.
        count: number of structures.

    Returns:
        `[structures]`, for each structure the index of the first one with the same geometry: its own index if there is
        no earlier one.
    """
    first = np.arange(count)
    if count < 2:
        return first
    from scipy.spatial import KDTree

    invariants = _all_invariants(parts, count)
    tree = KDTree(invariants)
    n_close = np.concatenate(
        [
            np.asarray(tree.query_ball_point(block, _INVARIANT_TOLERANCE, p=np.inf, return_length=True))
            for block in np.array_split(invariants, -(-count // _COUNT_BLOCK))
        ]
    )
    candidates = n_close > 1
    if not candidates.any():
        return first
    descriptions = {
        i: _description(structure)
        for indices, structures in parts()
        for i, structure in zip(indices.tolist(), structures, strict=True)
        if candidates[i]
    }
    for i in np.flatnonzero(candidates).tolist():
        if first[i] != i:
            continue
        close = np.array(tree.query_ball_point(invariants[i], _INVARIANT_TOLERANCE, p=np.inf))
        later = close[(close > i) & (first[close] == close)]
        first[[j for j in later.tolist() if _equal(descriptions[i], descriptions[j])]] = i
    return first


def same_geometry_in(parts: Parts, count: int, others: Parts, n_others: int) -> NDArray[np.int64]:
    """Find the structures whose geometry is in another data set.

    Args:
        parts: the structures; called twice.
        count: their number.
        others: the structures of the other data set.
        n_others: their number.

    Returns:
        `[structures]`, the index of the first structure of the other data set with the same geometry, −1 if there is
        none.
    """

    def joined() -> Iterator[tuple[NDArray[np.int64], Sequence[Structure]]]:
        yield from others()
        for indices, structures in parts():
            yield indices + n_others, structures

    first = first_with_geometry(joined, n_others + count)[n_others:]
    return np.where(first < n_others, first, -1)


def merged_groups(names: Sequence[str], first: NDArray[np.int64]) -> list[str]:
    """Join the groups that share a geometry.

    Args:
        names: the group of each structure.
        first: `first_with_geometry` of them.

    Returns:
        The group of each structure; joined groups have the name of the alphabetically first of them.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            parent[name] = parent.get(parent[name], parent[name])
            name = parent[name]
        return name

    for i in np.flatnonzero(first != np.arange(len(first))).tolist():
        one, other = sorted((root(names[i]), root(names[int(first[i])])))
        parent[other] = one
    return [root(name) for name in names]


def _all_invariants(parts: Parts, count: int) -> NDArray[np.float64]:
    """Numbers of every structure that are equal for equal geometries; the first stands for its composition."""
    values, keys = np.zeros((count, 1 + _N_INVARIANTS)), np.zeros(count, dtype=np.int64)
    for indices, structures in parts():
        for is_periodic, invariants in ((False, _molecule_invariants), (True, _crystal_invariants)):
            members = [k for k, s in enumerate(structures) if s.periodic == is_periodic]
            if members:
                chosen = [structures[k] for k in members]
                keys[indices[members]] = _composition_keys(chosen)
                values[indices[members], 1:] = invariants(chosen)
    # Different compositions are far apart in the tree.
    values[:, 0] = np.unique(keys, return_inverse=True)[1]
    return values


def _composition_keys(structures: Sequence[Structure]) -> list[int]:
    """A number for each composition (of periodic structures with the order of the atoms), charge and multiplicity."""
    return [
        hash(
            (
                hash(s.numbers.tobytes()) if s.periodic else int(_keys(s.numbers).sum()),
                *(s.charge, max(s.multiplicity, 1), *map(bool, s.pbc)),  # a multiplicity of 0 is not stated
            )
        )
        for s in structures
    ]


def _keys(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The key of each atom's element or bead type."""
    bead = is_bead(numbers)
    keys = _KEYS[np.where(bead, 0, numbers)]
    return np.where(bead, numbers.astype(np.uint64) * _BEAD_FACTOR, keys) if bead.any() else keys


def _molecule_invariants(structures: Sequence[Structure]) -> NDArray[np.float64]:
    """Lengths in Å that change by about as much as the atoms move: means and extremes of distances to the centroid."""
    sizes = np.array([len(s) for s in structures])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    positions = np.concatenate([s.positions for s in structures])
    z = np.concatenate([s.numbers for s in structures]).astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.add.reduceat(values, starts, axis=0)
        return np.asarray(sums / sizes.reshape(-1, *[1] * (values.ndim - 1)))

    r2 = np.square(positions - np.repeat(mean(positions), sizes, axis=0)).sum(1)
    r = np.sqrt(r2)
    columns = [
        np.sqrt(mean(r2)),
        mean(r),
        np.maximum.reduceat(r, starts),
        np.minimum.reduceat(r, starts),
        np.sqrt(mean(z * r2) / mean(z)),
        mean(z * r) / mean(z),
    ]
    return np.stack(columns, axis=1)


def _crystal_invariants(structures: Sequence[Structure]) -> NDArray[np.float64]:
    """Structure factors of the three shortest reciprocal vectors, as lengths in Å that change as the atoms move."""
    rows = []
    for s in structures:
        lattice = _periodic_lattice(s)
        phases = np.exp(2j * np.pi * s.positions @ np.linalg.pinv(lattice))
        weights = s.numbers / s.numbers.mean() / np.sqrt(len(s))
        factors = (weights[:, None] * phases).sum(0) * np.linalg.norm(lattice, axis=1) / (2 * np.pi)
        rows.append(np.concatenate([factors.real, factors.imag]))
    return np.array(rows)


def _periodic_lattice(structure: Structure) -> NDArray[np.float64]:
    """Lattice vectors; zeros for directions that are not periodic."""
    return np.where(np.array(structure.pbc, dtype=bool)[:, None], structure.cell, 0.0)


def _description(structure: Structure) -> _Description:
    """Numbers to compare: sorted distances of each pair of elements of a molecule, cell and positions of a crystal."""
    if structure.periodic:
        return _periodic_lattice(structure), structure.positions
    if len(structure) <= _MAX_PAIRWISE_ATOMS:
        i, j = np.triu_indices(len(structure), 1)
        z, distances = structure.numbers, np.linalg.norm(structure.positions[i] - structure.positions[j], axis=1)
        order = np.lexsort((distances, np.maximum(z[i], z[j]), np.minimum(z[i], z[j])))
        return None, distances[order].astype(np.float32)
    return None, _distances_to_points(structure)


def _distances_to_points(structure: Structure) -> NDArray[np.float32]:
    """Distances of the atoms of each element, sorted, to four points that follow from the geometry."""
    x, z = structure.positions, structure.numbers.astype(np.float64)
    r2 = np.square(x - x.mean(0)).sum(1)
    weights = np.stack([np.ones_like(z), z, r2, z * r2**2])
    points = weights @ x / weights.sum(1, keepdims=True)
    columns = [np.linalg.norm(x - point, axis=1) for point in points]
    return np.concatenate([c[np.lexsort((c, z))] for c in columns]).astype(np.float32)


def _equal(one: _Description, other: _Description) -> bool:
    (lattice, values), (other_lattice, other_values) = one, other
    difference = values - other_values
    if lattice is None or other_lattice is None:
        return not difference.size or bool(np.abs(difference).max() < _TOLERANCE)
    if np.abs(lattice - other_lattice).max() >= _TOLERANCE:
        return False
    difference = difference - np.round(difference @ np.linalg.pinv(lattice)) @ lattice
    return bool(np.abs(difference).max() < _TOLERANCE)
