"""Neighbor list of one structure: all pairs closer than a cutoff, periodic images included (by vesin)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList

from hesse.errors import GeometryError

__all__ = ["Neighbors", "find_neighbors"]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Directed pairs of atoms (each pair in both directions), sorted by the central atom.

    Attributes:
        centers: index of the central atom, `[pairs]`.
        neighbors: index of its neighbor, `[pairs]`.
        cell_shifts: lattice translations of the neighbor, integers, `[pairs, 3]`; the image is at
            `positions[neighbors] + cell_shifts @ cell`.
        distances: Å, `[pairs]`.
        counts: number of neighbors of each atom, `[atoms]`.
    """

    centers: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    cell_shifts: NDArray[np.int64]
    distances: NDArray[np.float64]
    counts: NDArray[np.int64]


def find_neighbors(
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    pbc: tuple[bool, bool, bool],
    cutoff: float,
) -> Neighbors:
    """Find all pairs of atoms, including periodic images, with a distance below the cutoff.

    Args:
        positions: Å, `[atoms, 3]`.
        cell: lattice vectors as rows, Å, `[3, 3]`.
        pbc: which of the three directions are periodic.
        cutoff: Å.

    Returns:
        The pairs in a fixed order, so that sums over them are reproducible.

    Raises:
        GeometryError: the cutoff is negative or not finite.
    """
    if not (np.isfinite(cutoff) and cutoff >= 0):
        raise GeometryError(f"the cutoff must be a finite number of Å, not below zero, got {cutoff}")
    n = len(positions)
    if cutoff == 0:  # a potential without interactions, such as bare element references
        centers = neighbors = np.zeros(0, dtype=np.int64)
        distances, cell_shifts = np.zeros(0), np.zeros((0, 3), dtype=np.int64)
    elif any(pbc):
        # vesin needs three lattice vectors; those of open directions are never repeated.
        box = _complete_cell(positions, cell, pbc, cutoff)
        search = NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
        centers, neighbors, cell_shifts, distances = search.compute(positions, box, list(pbc), "ijSd")
    elif n <= 64:
        # The full distance matrix: for molecules this is faster than any cell list.
        distance_matrix = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        within = distance_matrix < cutoff
        np.fill_diagonal(within, False)
        centers, neighbors = np.nonzero(within)
        distances, cell_shifts = distance_matrix[centers, neighbors], np.zeros((len(centers), 3), dtype=np.int64)
    else:
        search = NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
        centers, neighbors, distances = search.compute(positions, np.zeros((3, 3)), False, "ijd")
        cell_shifts = np.zeros((len(centers), 3), dtype=np.int64)
    centers, neighbors = np.asarray(centers, dtype=np.int64), np.asarray(neighbors, dtype=np.int64)
    cell_shifts = np.asarray(cell_shifts, dtype=np.int64)
    # A fixed order makes sums, and therefore losses, reproducible bit by bit.
    order = np.lexsort((cell_shifts[:, 2], cell_shifts[:, 1], cell_shifts[:, 0], neighbors, centers))
    return Neighbors(
        centers[order],
        neighbors[order],
        cell_shifts[order],
        np.asarray(distances, dtype=np.float64)[order],
        np.bincount(centers, minlength=n).astype(np.int64),
    )


def _complete_cell(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: tuple[bool, bool, bool], cutoff: float
) -> NDArray[np.float64]:
    """The cell with a vector longer than the structure in every open direction, normal to the periodic vectors."""
    box = np.zeros((3, 3))
    periodic = [k for k in range(3) if pbc[k]]
    open_directions = [k for k in range(3) if not pbc[k]]
    box[periodic] = cell[periodic]
    if open_directions:
        normals = np.linalg.svd(cell[periodic])[2][len(periodic) :]
        extent = float(np.ptp(positions @ normals.T, axis=0).max()) + 2.0 * cutoff + 1.0
        box[open_directions] = extent * normals
    return box
