"""Which atoms an environment is made of: the atoms of each element, their near neighbours, and pairs of these. Found
with a shorter cutoff than the neighbour matrix has; no derivative passes through."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.structures import Batch

__all__ = ["Triples", "find_triples"]


class Triples(NamedTuple):
    """Rows of environments, and every row's atom with every two of its near neighbours, once.

    Attributes:
        rows: for each element, the atoms that are of it; two at least, of which the first atom of the batch may stand
            in for those that are not there (so that every network always has a block of rows).
        kept: which rows are no stand-ins.
        near: for each row, in the order of `rows`, which element each of its neighbours is.
        close: places in the flattened `near` of the neighbours within the shorter cutoff.
        one, two: the two neighbours of each triple, as places in `close`.
        group: what a triple adds to: its row and the two elements, `row * pairs of elements + pair`; ascending.
    """

    rows: tuple[Int[Tensor, "some_atoms"], ...]
    kept: Bool[Tensor, "rows"]
    near: Int[Tensor, "rows k"]
    close: Int[Tensor, "close"]
    one: Int[Tensor, "triples"]
    two: Int[Tensor, "triples"]
    group: Int[Tensor, "triples"]

    @property
    def order(self) -> Int[Tensor, "rows"]:
        """The atom of every row."""
        return torch.cat(self.rows)


@torch.no_grad()
def find_triples(batch: Batch, element: Int[Tensor, "atoms"], elements: int, cutoff: float) -> Triples:
    """The triples whose two neighbours are closer to the atom than `cutoff`.

    Args:
        batch: with neighbours up to `cutoff`, at least.
        element: which of the elements each atom is, counted from 0.
        elements: how many there are.
        cutoff: Å.
    """
    # Atoms of one element side by side: each network then works on one block of rows.
    found = [(element == number).nonzero()[:, 0] for number in range(elements)]
    missing = [max(0, 2 - len(atoms)) for atoms in found]
    rows = tuple(torch.cat([a, a.new_zeros(m)]) if m else a for a, m in zip(found, missing, strict=True))
    order = torch.cat(rows)
    stand_ins = zip(found, missing, strict=True)
    kept = torch.cat([torch.arange(len(a) + m, device=order.device) < len(a) for a, m in stand_ins])
    near = element[batch.neighbours.index_select(0, order)]
    n_rows, k = near.shape
    inside = (batch.pair_vectors().square().sum(-1) < cutoff**2) & batch.neighbour_mask
    inside = inside.index_select(0, order) & kept[:, None]
    row, place = inside.nonzero(as_tuple=True)  # by row, and within it by place
    counts = torch.bincount(row, minlength=n_rows)
    first = counts.cumsum(0) - counts
    # A close neighbour meets those of its row that come after it.
    later = (first + counts)[row] - torch.arange(len(row), device=row.device) - 1
    one = torch.repeat_interleave(torch.arange(len(row), device=row.device), later)
    two = one + 1 + torch.arange(len(one), device=row.device) - (later.cumsum(0) - later)[one]
    of_close = near[row, place]
    low = torch.minimum(of_close[one], of_close[two])
    high = torch.maximum(of_close[one], of_close[two])
    pair = low * (2 * elements - low - 1) // 2 + high  # row `low` of an upper triangle begins there
    group = row[one] * (elements * (elements + 1) // 2) + pair
    # In order of what they add to: sums then touch memory in order.
    group, sorting = group.sort(stable=True)
    return Triples(rows, kept, near, row * k + place, one[sorting], two[sorting], group)
