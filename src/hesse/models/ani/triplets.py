"""Which atoms an environment is made of: the atoms of each element, their near neighbors, and pairs of these. Found
with a shorter cutoff than the neighbor matrix has; no derivative passes through."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.structures import Batch

__all__ = ["TripletIndex", "find_triplets"]


class TripletIndex(NamedTuple):
    """Rows of environments, and every row's atom with every two of its near neighbors, once.

    Attributes:
        rows: for each element, the atoms that are of it; two at least, of which the first atom of the batch may stand
            in for those that are not there (so that every network always has a block of rows).
        kept: which rows are no stand-ins.
        near: for each row, in the order of `rows`, which element each of its neighbors is.
        close: places in the flattened `near` of the neighbors within the shorter cutoff.
        one, two: the two neighbors of each triple, as places in `close`.
        group: what a triple adds to: its row and the two elements, `row * pairs of elements + pair`; ascending.
    """

    atoms_by_element: tuple[Int[Tensor, "some_atoms"], ...]
    is_real: Bool[Tensor, "atoms_by_element"]
    neighbor_element: Int[Tensor, "rows k"]
    inside: Int[Tensor, "inside"]
    neighbor_j: Int[Tensor, "triples"]
    neighbor_k: Int[Tensor, "triples"]
    segment: Int[Tensor, "triples"]

    @property
    def order(self) -> Int[Tensor, "atoms_by_element"]:
        """The atom of every row."""
        return torch.cat(self.atoms_by_element)


@torch.no_grad()
def find_triplets(batch: Batch, element: Int[Tensor, "atoms"], elements: int, cutoff: float) -> TripletIndex:
    """The triples whose two neighbors are closer to the atom than `cutoff`.

    Args:
        batch: with neighbors up to `cutoff`, at least.
        element: which of the elements each atom is, counted from 0.
        elements: how many there are.
        cutoff: Å.
    """
    # Atoms of one element side by side: each network then works on one block of rows.
    real_atoms = [(element == number).nonzero()[:, 0] for number in range(elements)]
    n_missing = [max(0, 2 - len(atoms)) for atoms in real_atoms]
    atoms_by_element = tuple(
        torch.cat([a, a.new_zeros(m)]) if m else a for a, m in zip(real_atoms, n_missing, strict=True)
    )
    order = torch.cat(atoms_by_element)
    padding = zip(real_atoms, n_missing, strict=True)
    is_real = torch.cat([torch.arange(len(a) + m, device=order.device) < len(a) for a, m in padding])
    neighbor_element = element[batch.neighbors.index_select(0, order)]
    n_rows, k = neighbor_element.shape
    within_cutoff = (batch.neighbor_vectors().square().sum(-1) < cutoff**2) & batch.neighbor_mask
    within_cutoff = within_cutoff.index_select(0, order) & is_real[:, None]
    row, slot = within_cutoff.nonzero(as_tuple=True)  # by row, and within it by place
    counts = torch.bincount(row, minlength=n_rows)
    row_start = counts.cumsum(0) - counts
    # A close neighbor meets those of its row that come after it.
    n_later = (row_start + counts)[row] - torch.arange(len(row), device=row.device) - 1
    neighbor_j = torch.repeat_interleave(torch.arange(len(row), device=row.device), n_later)
    neighbor_k = (
        neighbor_j + 1 + torch.arange(len(neighbor_j), device=row.device) - (n_later.cumsum(0) - n_later)[neighbor_j]
    )
    element_inside = neighbor_element[row, slot]
    low = torch.minimum(element_inside[neighbor_j], element_inside[neighbor_k])
    high = torch.maximum(element_inside[neighbor_j], element_inside[neighbor_k])
    pair = low * (2 * elements - low - 1) // 2 + high  # row `low` of an upper triangle begins there
    segment = row[neighbor_j] * (elements * (elements + 1) // 2) + pair
    # In order of what they add to: sums then touch memory in order.
    segment, sorting = segment.sort(stable=True)
    return TripletIndex(
        atoms_by_element, is_real, neighbor_element, row * k + slot, neighbor_j[sorting], neighbor_k[sorting], segment
    )
