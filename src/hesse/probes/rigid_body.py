"""Rigid-body motions of the structures of a batch, and their removal from directions.

There are three implementations of rigid-body motions, because their definitions differ: here not orthonormalized, in
plain Cartesian coordinates, on any device; in `hesse.harmonic.normal_modes` orthonormal and mass-weighted; in
`hesse.datasets.quality.sum_rules` along the principal axes of inertia, where each rotation needs its own sum rule. A
common implementation would change the last digits of probes, and with them reproducible training runs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.structures import Batch

__all__ = ["internal_dof", "project_out_rigid_body", "rigid_body_modes"]

_RANK_TOLERANCE = 1e-9


def rigid_body_modes(batch: Batch) -> Float[Tensor, "atoms 3 motions"]:
    """Translations and rotations of each structure about its centroid, scaled to order one, not orthonormalized.

    Args:
        batch: structures.

    Returns:
        Displacements of each atom, `[atoms, 3, 6]`, float64: three translations, three rotations. Rotations of periodic
        structures are zero, because a crystal is not invariant under rotation in its cell.
    """
    positions = batch.positions.detach().to(torch.float64)
    centered = positions - (batch.sum_over_atoms(positions) / batch.n_atoms[:, None])[batch.structure_index]
    size = (batch.sum_over_atoms(centered.square().sum(-1)) / batch.n_atoms).sqrt().clamp(min=1e-12)
    centered = centered / size[batch.structure_index, None]
    identity = torch.eye(3, dtype=torch.float64, device=positions.device)
    translations = identity.expand(len(positions), 3, 3)
    # Column e of the rotations is e × r.
    rotations = torch.linalg.cross(identity[None].expand(len(positions), 3, 3), centered[:, None].expand(-1, 3, 3))
    rotations = rotations.transpose(1, 2) * ~batch.pbc.any(-1)[batch.structure_index, None, None]
    return torch.cat([translations, rotations], dim=-1)


def _gram_pseudo_inverse(
    batch: Batch, modes: Float[Tensor, "atoms 3 motions"]
) -> tuple[Float[Tensor, "structures motions motions"], Int[Tensor, "structures"]]:
    """Pseudo-inverse of the overlap matrix of the motions of each structure, and its rank (6; 5 for linear molecules, 3
    for atoms and crystals)."""
    gram = batch.sum_over_atoms(modes.transpose(1, 2) @ modes)
    values, vectors = torch.linalg.eigh(gram)
    independent = values > _RANK_TOLERANCE * values[:, -1:]
    inverse = torch.where(independent, 1.0 / torch.where(independent, values, 1.0), 0.0)
    return (vectors * inverse[:, None]) @ vectors.transpose(1, 2), independent.sum(-1)


def internal_dof(batch: Batch) -> Int[Tensor, "structures"]:
    """Number of internal degrees of freedom: 3N minus the number of independent rigid-body motions.

    Args:
        batch: structures.

    Returns:
        Number for each structure.
    """
    return 3 * batch.n_atoms - _gram_pseudo_inverse(batch, rigid_body_modes(batch))[1]


def project_out_rigid_body(
    batch: Batch, directions: Float[Tensor, "probes atoms 3"]
) -> Float[Tensor, "probes atoms 3"]:
    """Orthogonal projection of directions on the internal space of each structure.

    Args:
        batch: structures.
        directions: `[probes, atoms, 3]`.

    Returns:
        Directions without rigid-body motions, of the same shape and type.
    """
    modes = rigid_body_modes(batch)
    inverse, _ = _gram_pseudo_inverse(batch, modes)
    vectors = directions.to(torch.float64)
    # [atoms, probes, motions]: overlap of each direction with each motion, summed over the atoms of the structure.
    overlaps = batch.sum_over_atoms(torch.einsum("pax,axm->apm", vectors, modes))
    coefficients = (overlaps @ inverse)[batch.structure_index]
    return (vectors - torch.einsum("axm,apm->pax", modes, coefficients)).to(directions.dtype)
