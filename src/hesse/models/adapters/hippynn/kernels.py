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

__all__ = ["sum_messages", "use_matmul_kernels"]


def sum_messages(
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
    n_atoms, n_pairs = len(features), len(first)
    counts = torch.bincount(first, minlength=n_atoms)
    max_neighbors = int(counts.max()) if n_pairs else 1
    slots = torch.arange(n_pairs, device=first.device) - (counts.cumsum(0) - counts).index_select(0, first)
    slots = slots + first * max_neighbors
    padded_sensitivities = sensitivities.new_zeros(n_atoms * max_neighbors, sensitivities.shape[1]).index_copy(0, slots, sensitivities)
    senders = second.new_zeros(n_atoms * max_neighbors).index_copy(0, slots, second)
    received = features.index_select(0, senders).reshape(n_atoms, max_neighbors, -1)
    return torch.bmm(padded_sensitivities.reshape(n_atoms, max_neighbors, -1).transpose(1, 2), received)


@contextmanager
def use_matmul_kernels() -> Iterator[None]:
    """hippynn's networks use `environments` while a graph is evaluated; afterwards what the user chose."""
    import_hippynn()
    kernels: Any = sys.modules["hippynn.custom_kernels"]
    saved = kernels.envsum
    kernels.envsum = sum_messages
    try:
        yield
    finally:
        kernels.envsum = saved
