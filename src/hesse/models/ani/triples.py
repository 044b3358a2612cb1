"""Pairs of near neighbours of an atom, found in a neighbour list with a shorter cutoff of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Triples", "find_triples"]


@dataclass(frozen=True, eq=False)
class Triples:
    """Every atom with every two of its near neighbours, once.

    Attributes:
        near: for each atom, the places of its near neighbours in the flattened neighbour matrix.
        mask: which of these are used.
        pair: where the two neighbours of a triple meet in a flattened `[rows, n, n]` table.
        group: what a triple adds to: its atom and the two elements, `atom * pairs of elements + pair`.
        groups: how many of these there are.
    """

    near: Int[Tensor, "rows n"]
    mask: Bool[Tensor, "rows n"]
    pair: Int[Tensor, "triples"]
    group: Int[Tensor, "triples"]
    groups: int

    def take(self, table: Float[Tensor, "rows n n"]) -> Float[Tensor, "triples"]:
        """The entries of a table over two neighbours that belong to the triples."""
        return table.reshape(-1).index_select(0, self.pair)


@torch.no_grad()
def find_triples(
    distances: Float[Tensor, "rows k"],
    mask: Bool[Tensor, "rows k"],
    near: Int[Tensor, "rows k"],
    elements: int,
    cutoff: float,
) -> Triples:
    """The triples whose two neighbours are closer to the atom than `cutoff`.

    Args:
        distances: Å, to each neighbour.
        mask: which places of the neighbour matrix are used.
        near: which element each neighbour is, counted from 0.
        elements: how many elements there are.
        cutoff: Å.
    """
    rows, k = distances.shape
    device = distances.device
    close = mask & (distances < cutoff)
    counts = close.sum(1)
    most = int(counts.max()) if rows else 0
    first = (~close).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]  # the close ones to the front
    flat = first + k * torch.arange(rows, device=device)[:, None]
    kept = torch.arange(most, device=device) < counts[:, None]
    element = near.reshape(-1)[flat]
    one, two = torch.triu_indices(most, most, 1, device=device)
    row, place = kept[:, two].nonzero(as_tuple=True)  # neighbours stand in front: where the second is, so is the first
    one, two = one[place], two[place]
    pairs = elements * (elements + 1) // 2
    low = torch.minimum(element[row, one], element[row, two])
    high = torch.maximum(element[row, one], element[row, two])
    of_elements = low * (2 * elements - low - 1) // 2 + high  # row `low` of an upper triangle begins there
    return Triples(flat, kept, (row * most + one) * most + two, row * pairs + of_elements, rows * pairs)
