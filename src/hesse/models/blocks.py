"""Molecules as padded blocks: every atom of a molecule with every other.

Small molecules have few pairs beyond a cutoff, and a block needs no gathering of neighbours: what a sender sends can be
contracted with weights once per atom, not once per neighbour.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.structures import Batch

__all__ = ["Blocks", "blocks_of"]


class Blocks(NamedTuple):
    """Open structures of a batch, padded to the longest.

    Attributes:
        atoms: the atom at each place; padding repeats the first atom of its structure.
        pairs: which two places hold two different atoms.
        places: where each atom of the batch stands in the flattened `atoms`.
    """

    atoms: Int[Tensor, "structures longest"]
    pairs: Bool[Tensor, "structures longest longest"]
    places: Int[Tensor, "atoms"]

    def vectors(self, positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "structures longest longest 3"]:
        """From each place to each other of its structure, Å."""
        there = positions.index_select(0, self.atoms.reshape(-1)).reshape(*self.atoms.shape, 3)
        return there[:, None] - there[:, :, None]


@torch.no_grad()
def blocks_of(batch: Batch, longest: int) -> Blocks:
    """Blocks of a batch of open structures, the longest of which has `longest` atoms."""
    place = torch.arange(longest, device=batch.numbers.device)
    there = place < batch.n_atoms[:, None]
    first = batch.n_atoms.cumsum(0) - batch.n_atoms
    different = place[:, None] != place
    return Blocks(
        atoms=first[:, None] + torch.where(there, place, 0),
        pairs=there[:, None] & there[:, :, None] & different,
        places=(place + longest * torch.arange(len(batch), device=place.device)[:, None])[there],
    )
