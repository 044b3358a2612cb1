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
        inside: indices, in the flattened `neighbor_element`, of the neighbors within the angular cutoff; those of a row
            are sorted by element.
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
    atoms_by_element, is_real = _rows(element, elements)
    order = torch.cat(atoms_by_element)
    neighbors = batch.neighbors.index_select(0, order)
    n_rows, k = neighbors.shape
    # index_select takes a third of the time of indexing with brackets.
    neighbor_element = element.index_select(0, neighbors.reshape(-1))
    x, y, z = batch.neighbor_vectors().unbind(-1)
    within_cutoff = (x * x + y * y + z * z < cutoff**2) & batch.neighbor_mask
    within_cutoff = within_cutoff.index_select(0, order) & is_real[:, None]
    inside = within_cutoff.reshape(-1).nonzero()[:, 0]
    # The neighbors of an atom sorted by element: block (row, element) is one interval.
    row = inside.div(k, rounding_mode="floor")
    block, sorting = torch.add(neighbor_element.index_select(0, inside), row, alpha=elements).sort(stable=True)
    count = torch.bincount(block, minlength=n_rows * elements)
    start = (count.cumsum(0) - count).reshape(n_rows, elements)
    count = count.reshape(n_rows, elements)
    # A segment is a pair of blocks of a row; each neighbor of the first block meets those of the second one, or if both
    # are the same block the later ones.
    first, second = torch.triu_indices(elements, elements, device=order.device)
    n_second = count.index_select(1, second)
    n_first = count.index_select(1, first) * (n_second > 0)
    segment, rank = _repeated(n_first)
    later = (rank + 1) * (first == second).expand(n_rows, -1).reshape(-1).index_select(0, segment)
    n_partners = n_second.reshape(-1).index_select(0, segment) - later
    meeting, partner = _repeated(n_partners)
    first_neighbor = start.index_select(1, first).reshape(-1).index_select(0, segment) + rank
    first_partner = start.index_select(1, second).reshape(-1).index_select(0, segment) + later
    return TripletIndex(
        atoms_by_element,
        is_real,
        neighbor_element.reshape(n_rows, k),
        inside.index_select(0, sorting),
        first_neighbor.index_select(0, meeting),
        partner.add_(first_partner.index_select(0, meeting)),
        segment.index_select(0, meeting),
    )


def _rows(
    element: Int[Tensor, "atoms"], elements: int
) -> tuple[tuple[Int[Tensor, "some_atoms"], ...], Bool[Tensor, "rows"]]:
    """Atoms of each element, so that each network works on one block of rows, and which rows are atoms."""
    # No numbers on the host: recordings of this code for other programs hold for other molecules too.
    real_atoms = [(element == number).nonzero()[:, 0] for number in range(elements)]
    n_missing = [max(0, 2 - atoms.shape[0]) for atoms in real_atoms]
    atoms_by_element = tuple(
        torch.cat([a, a.new_zeros(m)]) if m else a for a, m in zip(real_atoms, n_missing, strict=True)
    )
    padding = zip(real_atoms, n_missing, strict=True)
    is_real = torch.cat([torch.arange(a.shape[0] + m, device=element.device) < a.shape[0] for a, m in padding])
    return atoms_by_element, is_real


def _repeated(numbers: Int[Tensor, "*n"]) -> tuple[Int[Tensor, "total"], Int[Tensor, "total"]]:
    """Index i of each of the `numbers`, as often as the number says, and with each 0, 1, ..., `numbers[i]` - 1."""
    numbers = numbers.reshape(-1)
    owner = torch.repeat_interleave(numbers)
    starts = numbers.cumsum(0) - numbers
    return owner, torch.arange(owner.shape[0], device=owner.device).sub_(starts.index_select(0, owner))
