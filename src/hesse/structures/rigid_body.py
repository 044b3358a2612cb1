"""Rigid-body motions of structures: translations, and rotations about the principal axes of inertia.

One implementation for everything that needs them: probes without rigid-body motions (batches, any device), normal modes
(mass-weighted) and the sum rules of labels (each rotation with its own axis).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.structures.batch import segment_ids

__all__ = ["RigidBodyModes", "rigid_body_modes"]

_MIN_EXTENT = 1e-6
"""Å² per unit of mass; structures that are smaller, which are single atoms, do not rotate."""


@dataclass(frozen=True, eq=False)
class RigidBodyModes:
    """Orthonormal rigid-body motions of each structure: three translations, then rotations about three principal axes.

    Attributes:
        motions: displacements, in mass-weighted coordinates if masses were given; zero for absent motions (rotations of
            single atoms, of periodic structures, and about the axis of a linear molecule).
        present: which motions each structure has.
        axes: the rotation axes, one per row.
        lever_arms: Å (times √u with masses); length of the vector √m e × r over all atoms, by which each rotation was
            divided.
        structure_index: the structure of each atom.
    """

    motions: Float[Tensor, "6 atoms 3"]
    present: Bool[Tensor, "6 structures"]
    axes: Float[Tensor, "structures 3 3"]
    lever_arms: Float[Tensor, "3 structures"]
    structure_index: Int[Tensor, "atoms"]

    def rotated_gradient(self, gradient: Float[Tensor, "atoms 3"]) -> Float[Tensor, "3 atoms 3"]:
        """Compute the change of the gradient under each rotation, which a Hessian must give for that motion.

        Args:
            gradient: gradient of the energy, eV/Å.

        Returns:
            `e × g` divided by the lever arm, for each rotation axis e, eV/Å²; zero for absent rotations.
        """
        axes = self.axes[self.structure_index].transpose(0, 1)
        products = torch.linalg.cross(axes, gradient.expand(3, -1, 3))
        return products * (self.present[3:] / self.lever_arms)[:, self.structure_index, None]

    def project_out(self, directions: Float[Tensor, "probes atoms 3"]) -> Float[Tensor, "probes atoms 3"]:
        """Orthogonal projection of directions on the internal space of each structure.

        Args:
            directions: `[probes, atoms, 3]`.

        Returns:
            Directions without rigid-body motions, of the same shape and type.
        """
        vectors = directions.to(torch.float64)
        overlaps = torch.einsum("pax,max->apm", vectors, self.motions)
        sums = overlaps.new_zeros(self.present.shape[1], *overlaps.shape[1:])
        sums = sums.index_add(0, self.structure_index, overlaps)
        return (vectors - torch.einsum("max,apm->pax", self.motions, sums[self.structure_index])).to(directions.dtype)


def rigid_body_modes(
    positions: Float[Tensor, "atoms 3"],
    n_atoms: Int[Tensor, "structures"],
    periodic: Bool[Tensor, "structures"],
    *,
    masses: Float[Tensor, "atoms"] | None = None,
    linear_tolerance: float,
) -> RigidBodyModes:
    """Construct the rigid-body motions of each structure.

    The principal axes make rotations orthogonal to each other; the center of mass makes them orthogonal to
    translations.

    Args:
        positions: Å, `[atoms, 3]`, the atoms of all structures end to end.
        n_atoms: number of atoms of each structure.
        periodic: which structures are periodic in any direction; a crystal is not invariant under rotation in its cell.
        masses: u, `[atoms]`, for motions in mass-weighted coordinates; None for Cartesian coordinates.
        linear_tolerance: a molecule is linear if its extent perpendicular to an axis is below this fraction of the
            extent along it (root mean squares): it does not rotate about that axis.

    Returns:
        The motions, float64, on the device of the positions.
    """
    positions = positions.detach().to(torch.float64)
    count, structure_index = len(n_atoms), segment_ids(n_atoms, len(positions))
    weights = torch.ones_like(positions[:, 0]) if masses is None else masses.to(torch.float64)

    def structure_sums(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add(0, structure_index, values)

    mass, roots = structure_sums(weights), weights.sqrt()
    center = structure_sums(weights[:, None] * positions) / mass[:, None]
    arms = roots[:, None] * (positions - center[structure_index])
    _, vectors = torch.linalg.eigh(structure_sums(arms[:, :, None] * arms[:, None, :]))
    axes = vectors.mT
    rotations = torch.linalg.cross(axes[structure_index], arms[:, None])  # [atoms, 3 motions, 3]
    squared = structure_sums(rotations.square().sum(-1))
    smallest = linear_tolerance**2 * torch.maximum(squared.amax(1), _MIN_EXTENT * mass)
    can_rotate = (squared > smallest[:, None]) & ~periodic[:, None]
    lever_arms = torch.where(can_rotate, squared, 1.0).sqrt()
    motions = positions.new_zeros(6, len(positions), 3)
    motions[:3].diagonal(dim1=0, dim2=2)[:] = (roots / mass.sqrt()[structure_index])[:, None]
    motions[3:] = (rotations * (can_rotate / lever_arms)[structure_index, :, None]).transpose(0, 1)
    present = torch.cat([torch.ones_like(can_rotate), can_rotate], dim=1)
    return RigidBodyModes(motions, present.T, axes, lever_arms.T, structure_index)
