"""Stress: the derivative of the energy by a strain of the cell, over its volume."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.structures import Batch

__all__ = ["apply_strain", "stress_from_strain_gradient"]


def apply_strain(batch: Batch, positions: Float[Tensor, "atoms 3"], strain: Float[Tensor, "structures 3 3"]) -> Batch:
    """The batch on other positions, each structure with its cell under the symmetric part of its strain."""
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    strained_positions = positions + (positions[:, None] @ symmetric.index_select(0, batch.structure_index))[:, 0]
    return batch.with_positions(positions=strained_positions, cell=batch.cell + batch.cell @ symmetric)


def stress_from_strain_gradient(batch: Batch, strain_gradient: Float[Tensor, "structures 3 3"]) -> Float[Tensor, "structures 3 3"]:
    """Stress, eV/Å³, from the derivative by strain; NaN for cells that are not periodic in all directions."""
    volume = torch.linalg.det(batch.cell).abs()[:, None, None]
    periodic = batch.pbc.all(-1)[:, None, None]
    return torch.where(periodic, strain_gradient / torch.where(periodic, volume, 1.0), torch.nan)
