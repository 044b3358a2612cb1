"""Index tables of ANI: atoms sorted by element, their neighbors within the angular cutoff, and pairs of these.

The tables are integers; no derivative passes through them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.structures import Batch

__all__ = ["TripletIndex", "find_triplets"]


class TripletIndex(NamedTuple):
    """Atoms sorted by element (rows), and all triplets of an atom and two of its neighbors.

    Attributes:
        atoms_by_element: for each element, the indices of its atoms, at least two: missing ones are filled with atom 0
            of the batch, so that every network always gets rows.
        is_real: False for rows that only fill up.
        neighbor_element: for each row, the element index of each of its neighbors.
        inside: indices, in the flattened `neighbor_element`, of the neighbors within the angular cutoff.
        neighbor_j: first neighbor of each triplet, as an index into `inside`.
        neighbor_k: second neighbor of each triplet, likewise.
        segment: index of the sum that a triplet contributes to, `row * (pairs of elements) + pair`; ascending.
    """

    atoms_by_element: tuple[Int[Tensor, "some_atoms"], ...]
    is_real: Bool[Tensor, "rows"]
    neighbor_element: Int[Tensor, "rows k"]
    inside: Int[Tensor, "inside"]
    neighbor_j: Int[Tensor, "triplets"]
    neighbor_k: Int[Tensor, "triplets"]
    segment: Int[Tensor, "triplets"]

    @property
    def order(self) -> Int[Tensor, "rows"]:
        """Atom index of every row."""
        return torch.cat(self.atoms_by_element)


@torch.no_grad()
def find_triplets(batch: Batch, element: Int[Tensor, "atoms"], elements: int, cutoff: float) -> TripletIndex:
    """Triplets whose two neighbors are closer to the central atom than `cutoff`.

    Args:
        batch: neighbors at least up to `cutoff`.
        element: element index of each atom, from 0.
        elements: number of elements.
        cutoff: Å.

    Returns:
        Index tables for the whole batch.
    """
    # Atoms of one element are contiguous, so that each network works on one block of rows.
    real_atoms = [(element == number).nonzero()[:, 0] for number in range(elements)]
    n_missing = [max(0, 2 - atoms.shape[0]) for atoms in real_atoms]
    atoms_by_element = tuple(
        torch.cat([a, a.new_zeros(m)]) if m else a for a, m in zip(real_atoms, n_missing, strict=True)
    )
    order = torch.cat(atoms_by_element)
    padding = zip(real_atoms, n_missing, strict=True)
    is_real = torch.cat([torch.arange(a.shape[0] + m, device=order.device) < a.shape[0] for a, m in padding])
    neighbor_element = element[batch.neighbors.index_select(0, order)]
    n_rows, k = neighbor_element.shape
    within_cutoff = (batch.neighbor_vectors().square().sum(-1) < cutoff**2) & batch.neighbor_mask
    within_cutoff = within_cutoff.index_select(0, order) & is_real[:, None]
    row, slot = within_cutoff.nonzero(as_tuple=True)  # sorted by row, then by slot
    counts = torch.bincount(row, minlength=n_rows)
    row_start = counts.cumsum(0) - counts
    # Each neighbor is paired with the later ones of its row.
    n_later = (row_start + counts)[row] - torch.arange(row.shape[0], device=row.device) - 1
    neighbor_j = torch.repeat_interleave(torch.arange(row.shape[0], device=row.device), n_later)
    neighbor_k = (
        neighbor_j
        + 1
        + torch.arange(neighbor_j.shape[0], device=row.device)
        - (n_later.cumsum(0) - n_later)[neighbor_j]
    )
    element_inside = neighbor_element[row, slot]
    low = torch.minimum(element_inside[neighbor_j], element_inside[neighbor_k])
    high = torch.maximum(element_inside[neighbor_j], element_inside[neighbor_k])
    pair = low * (2 * elements - low - 1) // 2 + high  # index in the upper triangle of element pairs
    segment = row[neighbor_j] * (elements * (elements + 1) // 2) + pair
    # Sorted by segment: the sums then access memory in order.
    segment, sorting = segment.sort(stable=True)
    return TripletIndex(
        atoms_by_element, is_real, neighbor_element, row * k + slot, neighbor_j[sorting], neighbor_k[sorting], segment
    )
