"""Distribution of structures over batches, and the order of the batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["draw_by_weight", "pack_batches", "shuffled_batches"]

Indices = NDArray[np.int64]


def pack_batches(sizes: Indices, order: Indices, max_size: int, max_count: int | None = None) -> list[Indices]:
    """Cut a sequence of structures into batches of limited size, without changing their order.

    Args:
        sizes: size of every structure of the data set (atoms, bytes, ...).
        order: indices of the structures to distribute.
        max_size: largest sum of sizes of a batch; a structure larger than this forms its own batch.
        max_count: largest number of structures of a batch; None for no limit.

    Returns:
        The indices of the structures of each batch.
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
    """Distribute structures over random batches, each index once.

    With a `window`, the structures of a batch are of similar size: the shuffled structures are cut into windows of
    `window` batches, each window is sorted by size (equal sizes stay in random order) and cut into batches, and the
    batches of all windows are shuffled. Every structure is still equally likely to be in the first batch or in any
    other, and every full batch gives each of its structures the same weight, so that the mean gradient over an epoch is
    the same as without windows. The remainder of a window makes one short batch at a random position among the sizes.

    Args:
        sizes: number of atoms of every structure of the data set.
        indices: the structures to distribute.
        generator: source of all randomness.
        max_atoms: largest number of atoms of a batch; a larger structure forms its own batch.
        max_structures: largest number of structures of a batch.
        window: number of batches that are sorted by size together; None for purely random batches.

    Returns:
        The indices of the structures of each batch.
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


def draw_by_weight(weights: NDArray[np.float64], weight_per_draw: float, generator: torch.Generator) -> Indices:
    """Draw structures, each as often as its weight says (systematic sampling).

    Points at equal distances, with one random offset, on a line along which the weights are laid. A structure is drawn
    `weight / weight_per_draw` times on average, and always this number rounded up or down.

    Args:
        weights: weight of each structure, 0 or more.
        weight_per_draw: distance of the points; the mean of the weights draws as many structures as there are.
        generator: source of the offset.

    Returns:
        Positions in `weights`, in order, some of them repeated.
    """
    ends = np.cumsum(weights)
    offset = float(torch.rand((), generator=generator, dtype=torch.float64))
    points = (np.arange(int(ends[-1] / weight_per_draw) + 1) + offset) * weight_per_draw
    drawn: Indices = np.searchsorted(ends, points[points < ends[-1]], side="right")
    return drawn


def _permutation(count: int, generator: torch.Generator) -> Sequence[int] | Indices:
    permutation: Indices = torch.randperm(count, generator=generator).numpy()
    return permutation
