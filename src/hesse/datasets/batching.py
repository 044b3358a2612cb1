"""In which order the structures of a data set are met: which share a batch, and which batch comes when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["pack_batches", "shuffled_batches"]

Indices = NDArray[np.int64]


def pack_batches(sizes: Indices, order: Indices, max_size: int, max_count: int | None = None) -> list[Indices]:
    """`order` cut into runs of at most `most` structures and of sizes that sum to at most `largest`; a structure
    larger than that runs alone.

    Args:
        sizes: of all structures (atoms, bytes, ...).
        order: the structures in question.
    """
    ends = np.concatenate([[0], np.cumsum(sizes[order])])
    batches = []
    start = 0
    while start < len(order):
        stop = max(int(np.searchsorted(ends, ends[start] + max_size, side="right")) - 1, start + 1)
        stop = stop if max_count is None else min(stop, start + max_count)
        batches.append(order[start:stop])
        start = stop
    return batches


def shuffled_batches(
    sizes: Indices,
    indices: Indices,
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
    order = indices[_permutation(len(indices), generator)]
    if window is None:
        return pack_batches(sizes, order, max_atoms, max_structures)
    batches: list[Indices] = []
    for start in range(0, len(order), window * max_structures):
        in_window = order[start : start + window * max_structures]
        in_window = in_window[np.argsort(sizes[in_window], kind="stable")]
        n_full, n_left = divmod(len(in_window), max_structures)
        short_batch_start = max_structures * int(_permutation(n_full + 1, generator)[0])
        for piece in np.split(in_window, [short_batch_start, short_batch_start + n_left]):
            batches += pack_batches(sizes, piece, max_atoms, max_structures)
    return [batches[k] for k in _permutation(len(batches), generator)]


def _permutation(count: int, generator: torch.Generator) -> Sequence[int] | Indices:
    permutation: Indices = torch.randperm(count, generator=generator).numpy()
    return permutation
