"""A batch in the layouts of other frameworks: padded arrays, edge lists. Differentiable in positions and cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.errors import RequestError
from hesse.structures import Batch, offsets_of

__all__ = ["Edges", "Padded", "edges", "padded", "require_open"]


@dataclass(frozen=True, eq=False)
class Padded:
    """Structures as rows of one length.

    Attributes:
        numbers: atomic numbers, `pad_number` in unused places.
        positions: Å, zeros in unused places.
        mask: which places are used.
    """

    numbers: Int[Tensor, "structures longest"]
    positions: Float[Tensor, "structures longest 3"]
    mask: Bool[Tensor, "structures longest"]

    def flat(self, values: Float[Tensor, "structures longest *rest"]) -> Float[Tensor, "atoms *rest"]:
        """Values of the atoms, end to end again, without the unused places."""
        return values[self.mask]


def padded(batch: Batch, *, pad_number: int = -1) -> Padded:
    """A batch as padded arrays; the lattice, if there is one, is left out (see `require_open`)."""
    longest = int(batch.n_atoms.max())
    place = torch.arange(len(batch.numbers), device=batch.owner.device) - offsets_of(batch.n_atoms)[batch.owner]
    flat = batch.owner * longest + place
    numbers = batch.numbers.new_full((len(batch) * longest,), pad_number).index_copy(0, flat, batch.numbers)
    positions = batch.positions.new_zeros(len(batch) * longest, 3).index_copy(0, flat, batch.positions)
    mask = torch.zeros_like(numbers, dtype=torch.bool).index_fill(0, flat, True)
    shape = (len(batch), longest)
    return Padded(numbers.reshape(shape), positions.reshape(*shape, 3), mask.reshape(shape))


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed pairs, both directions.

    Attributes:
        first: the atom that receives, index into the batch.
        second: its neighbour.
        shifts: lattice translations of the neighbour's image, whole numbers.
        translations: the same in Å: the image stands at `positions[second] + translations`.
        vectors: from `first` to the image of `second`, Å.
    """

    first: Int[Tensor, "edges"]
    second: Int[Tensor, "edges"]
    shifts: Float[Tensor, "edges 3"]
    translations: Float[Tensor, "edges 3"]
    vectors: Float[Tensor, "edges 3"]


def edges(batch: Batch, cutoff: float) -> Edges:
    """The pairs of a batch closer than `cutoff` Å, from its neighbour matrix, sorted by the receiving atom."""
    with torch.no_grad():
        near = batch.neighbour_mask & (batch.pair_vectors().square().sum(-1) < cutoff * cutoff)
        first, place = near.nonzero(as_tuple=True)
    second = batch.neighbours[first, place]
    gaps = batch.positions.index_select(0, second) - batch.positions.index_select(0, first)
    if batch.shifts is None:
        nothing = torch.zeros_like(gaps)
        return Edges(first, second, nothing, nothing, gaps)
    shifts = batch.shifts[first, place]
    lattice = batch.cell.index_select(0, batch.owner.index_select(0, first))
    translations = (shifts[:, None] @ lattice)[:, 0]
    return Edges(first, second, shifts, translations, gaps + translations)


def require_open(batch: Batch, name: str) -> None:
    """Raise RequestError when a structure of the batch is periodic and `name` cannot see lattices."""
    if bool(batch.pbc.any()):
        where = batch.ids[int(batch.pbc.any(-1).nonzero()[0])]
        raise RequestError(f'structure "{where}" is periodic, and {name} sees no lattice: use open structures only')
