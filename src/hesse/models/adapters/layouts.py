"""A batch in the layouts of other frameworks: padded arrays and edge lists, differentiable in positions and cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.errors import RequestError
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Batch, segment_offsets

__all__ = ["EdgeList", "PaddedStructures", "check_not_periodic", "edge_list", "pad_structures"]


@dataclass(frozen=True, eq=False, repr=False)
class PaddedStructures(ShortRepr):
    """Structures as rows of equal length, padded after the last atom.

    Attributes:
        numbers: atomic numbers; `pad_number` in the padding.
        positions: Å; zeros in the padding.
        mask: True for atoms, False for padding.
    """

    numbers: Int[Tensor, "structures longest"]
    positions: Float[Tensor, "structures longest 3"]
    mask: Bool[Tensor, "structures longest"]

    def unpad(self, values: Float[Tensor, "structures longest *rest"]) -> Float[Tensor, "atoms *rest"]:
        """Remove the padding and put the atoms of all structures end to end.

        Args:
            values: one value (or array) per row and slot.

        Returns:
            The values of the atoms, in the order of the batch.
        """
        return values[self.mask]


def pad_structures(batch: Batch, *, pad_number: int = -1) -> PaddedStructures:
    """Convert a batch to padded arrays. A lattice is left out (see `check_not_periodic`).

    Args:
        batch: the structures.
        pad_number: atomic number that marks padding.

    Returns:
        One row per structure, as long as the largest one.
    """
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


@dataclass(frozen=True, eq=False, repr=False)
class EdgeList(ShortRepr):
    """Directed pairs of atoms; every pair occurs in both directions.

    Attributes:
        centers: index of the atom that receives, in the batch.
        neighbors: index of its neighbor.
        cell_shifts: lattice translation of the neighbor's image, in whole cells.
        translations: the same in Å: the image is at `positions[neighbors] + translations`.
        vectors: from the center to the image of the neighbor, Å.
    """

    centers: Int[Tensor, "edges"]
    neighbors: Int[Tensor, "edges"]
    cell_shifts: Float[Tensor, "edges 3"]
    translations: Float[Tensor, "edges 3"]
    vectors: Float[Tensor, "edges 3"]


def edge_list(batch: Batch, cutoff: float) -> EdgeList:
    """List the pairs of a batch below a cutoff, taken from its neighbor matrix.

    Args:
        batch: the structures; their neighbor matrix must reach as far as the cutoff.
        cutoff: Å.

    Returns:
        The pairs, sorted by center.
    """
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
    """Raise RequestError if a structure is periodic, for models that ignore the lattice.

    Args:
        batch: the structures.
        name: name of the model, for the message.

    Raises:
        RequestError: a structure is periodic.
    """
    if bool(batch.pbc.any()):
        structure_id = batch.ids[int(batch.pbc.any(-1).nonzero()[0])]
        raise RequestError(
            f'structure "{structure_id}" is periodic, but {name} ignores lattices: use non-periodic structures only'
        )
