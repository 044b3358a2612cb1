"""In which order the structures of a data set are met: which share a batch, and which batch comes when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["in_runs", "shuffled"]

Indices = NDArray[np.int64]


def in_runs(sizes: Indices, order: Indices, largest: int, most: int | None = None) -> list[Indices]:
    """`order` cut into runs of at most `most` structures and of sizes that sum to at most `largest`; a structure
    larger than that runs alone.

    Args:
        sizes: of all structures (atoms, bytes, ...).
        order: the structures in question.
    """
    ends = np.concatenate([[0], np.cumsum(sizes[order])])
    runs = []
    start = 0
    while start < len(order):
        stop = max(int(np.searchsorted(ends, ends[start] + largest, side="right")) - 1, start + 1)
        stop = stop if most is None else min(stop, start + most)
        runs.append(order[start:stop])
        start = stop
    return runs


def shuffled(
    sizes: Indices,
    members: Indices,
    generator: torch.Generator,
    *,
    max_atoms: int,
    max_structures: int,
    window: int | None = None,
) -> list[Indices]:
    """`members` in random batches, each structure in one of them.

    With a `window`, batches hold structures of similar size: the shuffled members are cut into windows of so many
    batches, each window is sorted by size (equal sizes stay in random order) and cut, and the batches of all windows
    are shuffled. Every structure is still as likely to stand in the first batch as in any other, and every batch that
    is full gives each of its structures the same weight, so that the mean gradient over an epoch is that without
    windows. What is left over makes one short batch, whose place among the sizes is random.

    Args:
        sizes: atoms of all structures.
        members: the structures in question.
        generator: all randomness is drawn from it.
        max_atoms: limit of a batch.
        max_structures: limit of a batch.
        window: batches sorted together; None for none.
    """
    order = members[_permutation(len(members), generator)]
    if window is None:
        return in_runs(sizes, order, max_atoms, max_structures)
    runs: list[Indices] = []
    for start in range(0, len(order), window * max_structures):
        some = order[start : start + window * max_structures]
        some = some[np.argsort(sizes[some], kind="stable")]
        full, rest = divmod(len(some), max_structures)
        gap = max_structures * int(_permutation(full + 1, generator)[0])
        for piece in np.split(some, [gap, gap + rest]):
            runs += in_runs(sizes, piece, max_atoms, max_structures)
    return [runs[k] for k in _permutation(len(runs), generator)]


def _permutation(count: int, generator: torch.Generator) -> Sequence[int] | Indices:
    drawn: Indices = torch.randperm(count, generator=generator).numpy()
    return drawn
