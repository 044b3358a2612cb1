"""hippynn's message passing as batched matrix products on a neighbour matrix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.models.adapters.hippynn.graphs import import_hippynn

__all__ = ["environments", "matrix_kernels"]


def environments(
    sensitivities: Float[Tensor, "pairs s"],
    features: Float[Tensor, "atoms f"],
    first: Int[Tensor, "pairs"],
    second: Int[Tensor, "pairs"],
) -> Float[Tensor, "atoms s f"]:
    """`Σ_j s_ij z_j` for every atom i: what hippynn calls `envsum`, for pairs sorted by their first atom.

    Pairs are spread over places of a matrix `[atoms, k]` first, so that the sum is a matrix product per atom. hippynn's
    own operations in plain torch hold an array `[pairs, s, f]`, and its compiled ones cannot be differentiated along
    several directions at once.
    """
    atoms, count = len(features), len(first)
    counts = torch.bincount(first, minlength=atoms)
    width = int(counts.max()) if count else 1
    places = torch.arange(count, device=first.device) - (counts.cumsum(0) - counts).index_select(0, first)
    places = places + first * width
    spread = sensitivities.new_zeros(atoms * width, sensitivities.shape[1]).index_copy(0, places, sensitivities)
    senders = second.new_zeros(atoms * width).index_copy(0, places, second)
    received = features.index_select(0, senders).reshape(atoms, width, -1)
    return torch.bmm(spread.reshape(atoms, width, -1).transpose(1, 2), received)


@contextmanager
def matrix_kernels() -> Iterator[None]:
    """hippynn's networks use `environments` while a graph is evaluated; afterwards what the user chose."""
    import_hippynn()
    kernels: Any = sys.modules["hippynn.custom_kernels"]
    chosen = kernels.envsum
    kernels.envsum = environments
    try:
        yield
    finally:
        kernels.envsum = chosen
