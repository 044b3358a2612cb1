"""Neighbor pairs of all structures of a data set at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.structures import find_neighbors

__all__ = ["PairList", "neighbor_pairs"]

_MAX_DENSE_ATOMS: Final = 64
"""Atoms up to which all distances of an open structure are taken at once; larger ones have cell lists of their own."""
_CHUNK_DISTANCES: Final = 2_000_000
"""Distances held at once."""


@dataclass(frozen=True, eq=False)
class PairList:
    """Neighbor pairs of every atom of a data set below one cutoff, in order of the atoms; `second` counts from the
    first atom of the pair's own structure, so that structures can be moved about."""

    counts: Int[Tensor, "atoms"]
    starts: Int[Tensor, "atoms"]
    neighbors: Int[Tensor, "pairs"]
    cell_shifts: Int[Tensor, "pairs 3"] | None

    def to(self, device: torch.device | str) -> PairList:
        """On another device."""
        cell_shifts = None if self.cell_shifts is None else self.cell_shifts.to(device)
        return PairList(self.counts.to(device), self.starts.to(device), self.neighbors.to(device), cell_shifts)


@dataclass(frozen=True)
class _PairBlock:
    """Pairs of some atoms: the neighbors of `atoms[0]`, then those of `atoms[1]`, ..."""

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
    """All pairs closer than `cutoff` Å of structures laid end to end: those that `find_neighbors` finds for each one,
    in the same order. Molecules of one size are treated together, some thirty times faster than one by one.

    Args:
        positions: Å, `[atoms, 3]`.
        n_atoms: `[structures]`.
        cell: lattice vectors as rows, Å, `[structures, 3, 3]`.
        pbc: `[structures, 3]`.

    Raises:
        GeometryError: the cutoff is negative or not finite.
    """
    first_atom = np.cumsum(n_atoms) - n_atoms
    periodic: NDArray[np.bool_] = np.any(pbc, axis=-1)
    # A cutoff that is none is left to the search for one structure, which says so.
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
    """Pairs of small open structures, size by size."""
    for n in np.unique(n_atoms[structures]):
        same_size = structures[n_atoms[structures] == n]
        chunk = max(1, _CHUNK_DISTANCES // int(n * n))
        for start in range(0, len(same_size), chunk):
            atoms = first_atom[same_size[start : start + chunk], None] + np.arange(n)
            coordinates = positions[atoms]
            within_cutoff = np.linalg.norm(coordinates[:, :, None] - coordinates[:, None], axis=-1) < cutoff
            within_cutoff[:, np.arange(n), np.arange(n)] = False
            yield _PairBlock(atoms.reshape(-1), within_cutoff.sum(-1).reshape(-1), np.nonzero(within_cutoff)[2], None)
