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

__all__ = ["PaddedMolecules", "pad_molecules"]


class PaddedMolecules(NamedTuple):
    """Open structures of a batch, padded to the longest.

    Attributes:
        atoms: the atom at each place; padding repeats the first atom of its structure.
        pairs: which two places hold two different atoms.
        places: where each atom of the batch stands in the flattened `atoms`.
    """

    atoms: Int[Tensor, "structures longest"]
    pair_mask: Bool[Tensor, "structures longest longest"]
    slots: Int[Tensor, "atoms"]

    def vectors(self, positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "structures longest longest 3"]:
        """From each place to each other of its structure, Å."""
        padded_positions = positions.index_select(0, self.atoms.reshape(-1)).reshape(*self.atoms.shape, 3)
        return padded_positions[:, None] - padded_positions[:, :, None]


@torch.no_grad()
def pad_molecules(batch: Batch, max_atoms: int) -> PaddedMolecules:
    """Blocks of a batch of open structures, the longest of which has `longest` atoms."""
    slot = torch.arange(max_atoms, device=batch.numbers.device)
    is_atom = slot < batch.n_atoms[:, None]
    first = batch.n_atoms.cumsum(0) - batch.n_atoms
    off_diagonal = slot[:, None] != slot
    return PaddedMolecules(
        atoms=first[:, None] + torch.where(is_atom, slot, 0),
        pair_mask=is_atom[:, None] & is_atom[:, :, None] & off_diagonal,
        slots=(slot + max_atoms * torch.arange(len(batch), device=slot.device)[:, None])[is_atom],
    )
