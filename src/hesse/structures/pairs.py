"""Neighbor pairs: all pairs of atoms closer than a cutoff, periodic images included, of one structure or of many at
once (a data set), and their arrangement as a matrix.

Small molecules use distance matrices, all others vesin's cell lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from hesse.errors import GeometryError
from hesse.runtime.short_repr import ShortRepr

__all__ = [
    "Neighbors",
    "PairList",
    "distance_matrix",
    "find_neighbors",
    "neighbor_matrix",
    "neighbor_pairs",
    "squared_distances",
]

_MAX_EXTENT: Final = 1e5
"""Å; longer cells end the process in native code."""
_MIN_HEIGHT: Final = 0.1
"""Å between the planes of a cell that repeat; no crystal is below 1 Å."""
_MAX_IMAGES: Final = 200_000
"""Largest number of images of one cell within the cutoff; 0.4 Å cubes and 10 Å give about 130,000."""
_MAX_DENSE_ATOMS: Final = 64
"""Open structures with up to this number of atoms use distance matrices, which is faster than any cell list."""
_CHUNK_DISTANCES: Final = 2_000_000
"""Number of distances in memory at once."""


def distance_matrix(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances between all atoms of open structures with the same number of atoms.

    Args:
        positions: Å, `[..., atoms, 3]`.

    Returns:
        Å, `[..., atoms, atoms]`; infinity on the diagonal.
    """
    distances: NDArray[np.float64] = np.linalg.norm(positions[..., :, None, :] - positions[..., None, :, :], axis=-1)
    n = positions.shape[-2]
    distances.reshape(-1, n * n)[:, :: n + 1] = np.inf
    return distances


# --- one structure ----------------------------------------------------------------------------------------------------


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
        GeometryError: the cutoff is negative or not finite, or a cell or an extent of the atoms is beyond what native
            code can search.
    """
    if not (np.isfinite(cutoff) and cutoff >= 0):
        raise GeometryError(f"the cutoff must be a finite number of Å, not below zero, got {cutoff}")
    if not any(pbc) and cutoff > 0 and len(positions) <= _MAX_DENSE_ATOMS:
        distances = distance_matrix(positions)
        within = distances < cutoff
        centers, neighbors = np.nonzero(within)  # sorted already
        no_shifts = np.zeros((len(centers), 3), dtype=np.int64)
        return Neighbors(centers, neighbors, no_shifts, distances[centers, neighbors], within.sum(-1))
    if cutoff == 0:  # a potential without interactions, such as bare element references
        centers = neighbors = np.zeros(0, dtype=np.int64)
        distances, cell_shifts = np.zeros(0), np.zeros((0, 3), dtype=np.int64)
    else:
        search = NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
        if any(pbc):
            # vesin needs three lattice vectors; those of open directions are never repeated.
            box = _complete_cell(positions, cell, pbc, cutoff)
            _check_searchable(box, pbc, cutoff)
            centers, neighbors, cell_shifts, distances = search.compute(positions, box, list(pbc), "ijSd")
        else:
            _check_extent(float(np.ptp(positions, axis=0).max()), "the extent of the atoms is")
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
        np.bincount(centers, minlength=len(positions)).astype(np.int64),
    )


def _check_searchable(box: NDArray[np.float64], pbc: tuple[bool, bool, bool], cutoff: float) -> None:
    """Refuse cells in which a search would end the process, or take minutes. Raises GeometryError."""
    _check_extent(float(np.linalg.norm(box, axis=1).max()), "a lattice vector, or the extent of the atoms, is")
    areas = np.linalg.norm(np.cross(box[[1, 2, 0]], box[[2, 0, 1]]), axis=1)
    heights = (abs(np.linalg.det(box)) / np.maximum(areas, 1e-300))[list(pbc)]
    images = float(np.prod(2.0 * np.ceil(cutoff / np.maximum(heights, 1e-9)) + 1.0))
    if heights.min() < _MIN_HEIGHT or images > _MAX_IMAGES:
        raise GeometryError(
            f"the periodic cell is only {', '.join(f'{h:.3g}' for h in heights)} Å high along its periodic directions: "
            f"each atom would meet {images:.2g} images of every other within {cutoff:g} Å. The cell is a placeholder, "
            "in other units, or damaged; give the true one, or none for a molecule"
        )


def _check_extent(extent: float, what: str) -> None:
    if not extent <= _MAX_EXTENT:
        raise GeometryError(f"{what} {extent:.3g} Å long, expected at most {_MAX_EXTENT:g} Å: other units, or damaged")


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


# --- many structures --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class PairList(ShortRepr):
    """Neighbor pairs of all atoms of many structures, sorted by the central atom.

    Attributes:
        counts: number of neighbors of each atom.
        starts: position of the first neighbor of each atom in `neighbors`.
        neighbors: index of the neighbor within its own structure (0 is the first atom of the structure), so that
            structures can be reordered.
        cell_shifts: lattice translations of the neighbors; None if no structure is periodic.
    """

    counts: Int[Tensor, "atoms"]
    starts: Int[Tensor, "atoms"]
    neighbors: Int[Tensor, "pairs"]
    cell_shifts: Int[Tensor, "pairs 3"] | None

    def to(self, device: torch.device | str) -> PairList:
        """Copy on another device.

        Args:
            device: target device.

        Returns:
            The same pairs on `device`.
        """
        cell_shifts = None if self.cell_shifts is None else self.cell_shifts.to(device)
        return PairList(self.counts.to(device), self.starts.to(device), self.neighbors.to(device), cell_shifts)


@dataclass(frozen=True)
class _PairBlock:
    """Pairs of a subset of the atoms: neighbors of `atoms[0]`, then of `atoms[1]`, ..."""

    atoms: NDArray[np.int64]
    counts: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    cell_shifts: NDArray[np.int64] | None


def neighbor_pairs(
    positions: NDArray[np.float64],
    n_atoms: NDArray[np.int64],
    cell: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    cutoff: float,
) -> PairList:
    """Find the neighbor pairs of many concatenated structures.

    The result equals `find_neighbors` for each structure, in the same order. Molecules of equal size are processed
    together, about thirty times faster than one by one.

    Args:
        positions: Å, `[atoms, 3]`, of all structures.
        n_atoms: number of atoms of each structure, `[structures]`.
        cell: lattice vectors as rows, Å, `[structures, 3, 3]`.
        pbc: periodic directions, `[structures, 3]`.
        cutoff: Å.

    Returns:
        The pairs of all structures.

    Raises:
        GeometryError: the cutoff is negative or not finite.
    """
    first_atom = np.cumsum(n_atoms) - n_atoms
    periodic: NDArray[np.bool_] = np.any(pbc, axis=-1)
    # Invalid cutoffs (negative, infinite, NaN) go to `find_neighbors`, which raises the error.
    one_by_one = periodic | (n_atoms > _MAX_DENSE_ATOMS) | ~(np.isfinite(cutoff) & (cutoff > 0))
    blocks = list(_small_molecules(positions, n_atoms, first_atom, np.flatnonzero(~one_by_one), cutoff))
    for s in np.flatnonzero(one_by_one).tolist():
        atoms = first_atom[s] + np.arange(n_atoms[s])
        flags = (bool(pbc[s, 0]), bool(pbc[s, 1]), bool(pbc[s, 2]))
        pairs = find_neighbors(positions[atoms], cell[s], flags, cutoff)
        blocks.append(_PairBlock(atoms, pairs.counts, pairs.neighbors, pairs.cell_shifts if periodic[s] else None))
    counts = np.zeros(len(positions), dtype=np.int64)
    for block in blocks:
        counts[block.atoms] = block.counts
    starts = np.cumsum(counts) - counts
    neighbors = np.empty(int(counts.sum()), dtype=np.int64)
    cell_shifts = np.zeros((len(neighbors), 3), dtype=np.int64) if periodic.any() else None
    for block in blocks:
        block_starts = np.cumsum(block.counts) - block.counts
        slots = np.repeat(starts[block.atoms] - block_starts, block.counts) + np.arange(len(block.neighbors))
        neighbors[slots] = block.neighbors
        if cell_shifts is not None and block.cell_shifts is not None:
            cell_shifts[slots] = block.cell_shifts
    return PairList(
        torch.from_numpy(counts),
        torch.from_numpy(starts),
        torch.from_numpy(neighbors),
        None if cell_shifts is None else torch.from_numpy(cell_shifts),
    )


def _small_molecules(
    positions: NDArray[np.float64],
    n_atoms: NDArray[np.int64],
    first_atom: NDArray[np.int64],
    structures: NDArray[np.int64],
    cutoff: float,
) -> Iterator[_PairBlock]:
    """Pairs of small open structures, grouped by size."""
    for n in np.unique(n_atoms[structures]):
        same_size = structures[n_atoms[structures] == n]
        chunk = max(1, _CHUNK_DISTANCES // int(n * n))
        for start in range(0, len(same_size), chunk):
            atoms = first_atom[same_size[start : start + chunk], None] + np.arange(n)
            within_cutoff = distance_matrix(positions[atoms]) < cutoff
            yield _PairBlock(atoms.reshape(-1), within_cutoff.sum(-1).reshape(-1), np.nonzero(within_cutoff)[2], None)


# --- moving atoms -----------------------------------------------------------------------------------------------------


def squared_distances(
    positions: Float[Tensor, "atoms 3"],
    centers: Int[Tensor, "pairs"],
    neighbors: Int[Tensor, "pairs"],
    translations: Float[Tensor, "pairs 3"] | None,
) -> Float[Tensor, "pairs"]:
    """Squares of the distances of listed pairs, for lists that are used at many positions.

    Args:
        positions: Å.
        centers: index of the first atom of each pair.
        neighbors: index of the second atom.
        translations: lattice vector that is added to the second atom, Å; None for no periodic images.

    Returns:
        Å².
    """
    # index_select takes a third of the time of brackets, and three products less than a sum over an axis of 3.
    vectors = positions.index_select(0, neighbors) - positions.index_select(0, centers)
    if translations is not None:
        vectors += translations
    x, y, z = vectors.unbind(1)
    return x * x + y * y + z * z


# --- matrix -----------------------------------------------------------------------------------------------------------


def neighbor_matrix(
    counts: Int[Tensor, "atoms"],
    starts: Int[Tensor, "atoms"],
    neighbors: Int[Tensor, "pairs"],
    cell_shifts: Int[Tensor, "pairs 3"] | None,
    max_neighbors: int,
    first_atom: Int[Tensor, "atoms"] | None = None,
) -> tuple[Int[Tensor, "atoms k"], Bool[Tensor, "atoms k"], Int[Tensor, "atoms k 3"] | None]:
    """Arrange a pair list as a matrix with a row for each atom; unused entries hold the atom itself.

    Args:
        counts: number of neighbors of each atom.
        starts: index in `neighbors` of the first neighbor of each atom.
        neighbors: indices of the neighbors.
        cell_shifts: their lattice translations; None if no structure is periodic.
        max_neighbors: the largest of `counts`, from the CPU, so that an accelerator need not be waited for.
        first_atom: added to the neighbors of each atom; None for zero.

    Returns:
        Neighbors, mask of the used entries, and cell shifts (None without neighbors). There is at least one column.
    """
    atoms = torch.arange(len(counts), device=counts.device)[:, None]
    if max_neighbors == 0:
        return atoms.clone(), torch.zeros_like(atoms, dtype=torch.bool), None
    slot = torch.arange(max_neighbors, device=counts.device)
    mask = slot < counts[:, None]
    index = (starts[:, None] + slot).clamp_(max=len(neighbors) - 1).reshape(-1)
    matrix = neighbors.index_select(0, index).reshape(mask.shape)
    if first_atom is not None:
        matrix = matrix + first_atom[:, None]
    if cell_shifts is not None:
        cell_shifts = torch.where(mask[..., None], cell_shifts.index_select(0, index).reshape(*mask.shape, 3), 0)
    return torch.where(mask, matrix, atoms), mask, cell_shifts
