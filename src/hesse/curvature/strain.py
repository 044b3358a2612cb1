"""Stress: the derivative of the energy by a strain of the cell, over its volume."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.structures import Batch

__all__ = ["strained", "stress_of"]


def strained(batch: Batch, positions: Float[Tensor, "atoms 3"], strain: Float[Tensor, "structures 3 3"]) -> Batch:
    """The batch on other positions, each structure with its cell under the symmetric part of its strain."""
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    shifted = positions + (positions[:, None] @ symmetric.index_select(0, batch.owner))[:, 0]
    return batch.replace(positions=shifted, cell=batch.cell + batch.cell @ symmetric)


def stress_of(batch: Batch, slope: Float[Tensor, "structures 3 3"]) -> Float[Tensor, "structures 3 3"]:
    """Stress, eV/Å³, from the derivative by strain; NaN for cells that are not periodic in all directions."""
    volume = torch.linalg.det(batch.cell).abs()[:, None, None]
    whole = batch.pbc.all(-1)[:, None, None]
    return torch.where(whole, slope / torch.where(whole, volume, 1.0), torch.nan)
