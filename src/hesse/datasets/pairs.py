"""Neighbour pairs of all structures of a data set at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.structures import find_neighbours

__all__ = ["PairTable", "find_pairs"]

_SMALL: Final = 64
"""Atoms up to which all distances of an open structure are taken at once; larger ones have cell lists of their own."""
_AT_ONCE: Final = 2_000_000
"""Distances held at once."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """Neighbour pairs of every atom of a data set below one cutoff, in order of the atoms; `second` counts from the
    first atom of the pair's own structure, so that structures can be moved about."""

    counts: Int[Tensor, "atoms"]
    starts: Int[Tensor, "atoms"]
    second: Int[Tensor, "pairs"]
    shifts: Int[Tensor, "pairs 3"] | None

    def to(self, device: torch.device | str) -> PairTable:
        """On another device."""
        shifts = None if self.shifts is None else self.shifts.to(device)
        return PairTable(self.counts.to(device), self.starts.to(device), self.second.to(device), shifts)


@dataclass(frozen=True)
class _Found:
    """Pairs of some atoms: the neighbours of `atoms[0]`, then those of `atoms[1]`, ..."""

    atoms: NDArray[np.int64]
    counts: NDArray[np.int64]
    second: NDArray[np.int64]
    shifts: NDArray[np.int64] | None


def find_pairs(
    positions: NDArray[np.float64],
    n_atoms: NDArray[np.int64],
    cell: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    cutoff: float,
) -> PairTable:
    """All pairs closer than `cutoff` Å of structures laid end to end: those that `find_neighbours` finds for each one,
    in the same order. Molecules of one size are treated together, some thirty times faster than one by one.

    Args:
        positions: Å, `[atoms, 3]`.
        n_atoms: `[structures]`.
        cell: lattice vectors as rows, Å, `[structures, 3, 3]`.
        pbc: `[structures, 3]`.

    Raises:
        GeometryError: the cutoff is negative or not finite.
    """
    first = np.cumsum(n_atoms) - n_atoms
    periodic: NDArray[np.bool_] = np.any(pbc, axis=-1)
    # A cutoff that is none is left to the search for one structure, which says so.
    alone = periodic | (n_atoms > _SMALL) | ~(np.isfinite(cutoff) & (cutoff > 0))
    found = list(_molecules(positions, n_atoms, first, np.flatnonzero(~alone), cutoff))
    for s in np.flatnonzero(alone).tolist():
        atoms = first[s] + np.arange(n_atoms[s])
        flags = (bool(pbc[s, 0]), bool(pbc[s, 1]), bool(pbc[s, 2]))
        pairs = find_neighbours(positions[atoms], cell[s], flags, cutoff)
        found.append(_Found(atoms, pairs.counts, pairs.second, pairs.shifts if periodic[s] else None))
    counts = np.zeros(len(positions), dtype=np.int64)
    for part in found:
        counts[part.atoms] = part.counts
    starts = np.cumsum(counts) - counts
    second = np.empty(int(counts.sum()), dtype=np.int64)
    shifts = np.zeros((len(second), 3), dtype=np.int64) if periodic.any() else None
    for part in found:
        before = np.cumsum(part.counts) - part.counts
        place = np.repeat(starts[part.atoms] - before, part.counts) + np.arange(len(part.second))
        second[place] = part.second
        if shifts is not None and part.shifts is not None:
            shifts[place] = part.shifts
    return PairTable(
        torch.from_numpy(counts),
        torch.from_numpy(starts),
        torch.from_numpy(second),
        None if shifts is None else torch.from_numpy(shifts),
    )


def _molecules(
    positions: NDArray[np.float64],
    n_atoms: NDArray[np.int64],
    first: NDArray[np.int64],
    members: NDArray[np.int64],
    cutoff: float,
) -> Iterator[_Found]:
    """Pairs of small open structures, size by size."""
    for n in np.unique(n_atoms[members]):
        same = members[n_atoms[members] == n]
        at_once = max(1, _AT_ONCE // int(n * n))
        for start in range(0, len(same), at_once):
            atoms = first[same[start : start + at_once], None] + np.arange(n)
            here = positions[atoms]
            near = np.linalg.norm(here[:, :, None] - here[:, None], axis=-1) < cutoff
            near[:, np.arange(n), np.arange(n)] = False
            yield _Found(atoms.reshape(-1), near.sum(-1).reshape(-1), np.nonzero(near)[2], None)
