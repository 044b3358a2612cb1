"""A batch in the layouts of other frameworks: padded arrays, edge lists. Differentiable in positions and cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.errors import RequestError
from hesse.structures import Batch, segment_offsets

__all__ = ["EdgeList", "PaddedStructures", "check_not_periodic", "edge_list", "pad_structures"]


@dataclass(frozen=True, eq=False)
class PaddedStructures:
    """Structures as rows of one length.

    Attributes:
        numbers: atomic numbers, `pad_number` in unused places.
        positions: Å, zeros in unused places.
        mask: which places are used.
    """

    numbers: Int[Tensor, "structures longest"]
    positions: Float[Tensor, "structures longest 3"]
    mask: Bool[Tensor, "structures longest"]

    def unpad(self, values: Float[Tensor, "structures longest *rest"]) -> Float[Tensor, "atoms *rest"]:
        """Values of the atoms, end to end again, without the unused places."""
        return values[self.mask]


def pad_structures(batch: Batch, *, pad_number: int = -1) -> PaddedStructures:
    """A batch as padded arrays; the lattice, if there is one, is left out (see `check_not_periodic`)."""
    longest = int(batch.n_atoms.max())
    slot = (
        torch.arange(len(batch.numbers), device=batch.structure_index.device)
        - segment_offsets(batch.n_atoms)[batch.structure_index]
    )
    flat_index = batch.structure_index * longest + slot
    numbers = batch.numbers.new_full((len(batch) * longest,), pad_number).index_copy(0, flat_index, batch.numbers)
    positions = batch.positions.new_zeros(len(batch) * longest, 3).index_copy(0, flat_index, batch.positions)
    mask = torch.zeros_like(numbers, dtype=torch.bool).index_fill(0, flat_index, True)
    shape = (len(batch), longest)
    return PaddedStructures(numbers.reshape(shape), positions.reshape(*shape, 3), mask.reshape(shape))


@dataclass(frozen=True, eq=False)
class EdgeList:
    """Directed pairs, both directions.

    Attributes:
        first: the atom that receives, index into the batch.
        second: its neighbor.
        shifts: lattice translations of the neighbor's image, whole numbers.
        translations: the same in Å: the image stands at `positions[second] + translations`.
        vectors: from `first` to the image of `second`, Å.
    """

    centers: Int[Tensor, "edge_list"]
    neighbors: Int[Tensor, "edge_list"]
    cell_shifts: Float[Tensor, "edges 3"]
    translations: Float[Tensor, "edges 3"]
    vectors: Float[Tensor, "edges 3"]


def edge_list(batch: Batch, cutoff: float) -> EdgeList:
    """The pairs of a batch closer than `cutoff` Å, from its neighbor matrix, sorted by the receiving atom."""
    with torch.no_grad():
        within_cutoff = batch.neighbor_mask & (batch.neighbor_vectors().square().sum(-1) < cutoff * cutoff)
        centers, slot = within_cutoff.nonzero(as_tuple=True)
    neighbors = batch.neighbors[centers, slot]
    differences = batch.positions.index_select(0, neighbors) - batch.positions.index_select(0, centers)
    if batch.cell_shifts is None:
        zeros = torch.zeros_like(differences)
        return EdgeList(centers, neighbors, zeros, zeros, differences)
    cell_shifts = batch.cell_shifts[centers, slot]
    lattice = batch.cell.index_select(0, batch.structure_index.index_select(0, centers))
    translations = (cell_shifts[:, None] @ lattice)[:, 0]
    return EdgeList(centers, neighbors, cell_shifts, translations, differences + translations)


def check_not_periodic(batch: Batch, name: str) -> None:
    """Raise RequestError when a structure of the batch is periodic and `name` cannot see lattices."""
    if bool(batch.pbc.any()):
        structure_id = batch.ids[int(batch.pbc.any(-1).nonzero()[0])]
        raise RequestError(
            f'structure "{structure_id}" is periodic, and {name} sees no lattice: use open structures only'
        )
