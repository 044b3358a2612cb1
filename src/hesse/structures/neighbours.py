"""Neighbour lists: all pairs closer than a cutoff, periodic images included. Found by vesin, once per structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList

from hesse.errors import GeometryError

__all__ = ["Neighbours", "find_neighbours"]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Directed pairs (both directions are listed) in order of the first atom.

    Attributes:
        first: index of the central atom, `[pairs]`.
        second: index of its neighbour, `[pairs]`.
        shifts: lattice translations of the neighbour, integers, `[pairs, 3]`; its image stands at
            `positions[second] + shifts @ cell`.
        distances: Å, `[pairs]`.
        counts: neighbours of each atom, `[atoms]`.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shifts: NDArray[np.int64]
    distances: NDArray[np.float64]
    counts: NDArray[np.int64]


def find_neighbours(
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    pbc: tuple[bool, bool, bool],
    cutoff: float,
) -> Neighbours:
    """All pairs of atoms (and images) with distance below `cutoff` Å.

    Raises:
        GeometryError: the cutoff is negative or not finite.
    """
    if not (np.isfinite(cutoff) and cutoff >= 0):
        raise GeometryError(f"the cutoff must be a finite number of Å, not below zero, got {cutoff}")
    n = len(positions)
    if cutoff == 0:  # a potential without interactions, such as bare element references
        first = second = np.zeros(0, dtype=np.int64)
        distances, shifts = np.zeros(0), np.zeros((0, 3), dtype=np.int64)
    elif any(pbc):
        # Directions without a lattice vector still need one that spans space; being open, it is never repeated.
        box = _spanning_box(positions, cell, pbc, cutoff)
        search = NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
        first, second, shifts, distances = search.compute(positions, box, list(pbc), "ijSd")
    elif n <= 64:
        # All pairs at once: for molecules this is faster than any cell list.
        gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        near = gaps < cutoff
        np.fill_diagonal(near, False)
        first, second = np.nonzero(near)
        distances, shifts = gaps[first, second], np.zeros((len(first), 3), dtype=np.int64)
    else:
        search = NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
        first, second, distances = search.compute(positions, np.zeros((3, 3)), False, "ijd")
        shifts = np.zeros((len(first), 3), dtype=np.int64)
    first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    shifts = np.asarray(shifts, dtype=np.int64)
    # A fixed order makes sums, and therefore losses, reproducible bit by bit.
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], second, first))
    return Neighbours(
        first[order],
        second[order],
        shifts[order],
        np.asarray(distances, dtype=np.float64)[order],
        np.bincount(first, minlength=n).astype(np.int64),
    )


def _spanning_box(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: tuple[bool, bool, bool], cutoff: float
) -> NDArray[np.float64]:
    """The cell with every open direction replaced by one long enough to hold all atoms, normal to the periodic ones."""
    box = np.zeros((3, 3))
    periodic = [k for k in range(3) if pbc[k]]
    opened = [k for k in range(3) if not pbc[k]]
    box[periodic] = cell[periodic]
    if opened:
        normals = np.linalg.svd(cell[periodic])[2][len(periodic) :]
        extent = float(np.ptp(positions @ normals.T, axis=0).max()) + 2.0 * cutoff + 1.0
        box[opened] = extent * normals
    return box
