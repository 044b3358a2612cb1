"""The surroundings of each atom as numbers that do not depend on rotations or on the order of the atoms.

They do not depend on the elements of a data set either: smooth counts of neighbors at several distances, each also
weighted by the covalent radius of the neighbor, and the shape (dipole and quadrupole) of the first shell.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.structures.pairs import find_neighbors
from hesse.structures.species import species_radii
from hesse.structures.structure import Structure

__all__ = ["ENVIRONMENT_CUTOFF", "VECTOR_SIZE", "environment_vectors"]

ENVIRONMENT_CUTOFF = 5.0
"""Å; range of the neighbors that count."""
_CENTERS = np.array([1.0, 1.5, 2.0, 2.5, 3.25, 4.25])
_WIDTHS = np.array([0.25, 0.25, 0.3, 0.35, 0.5, 0.6])
"""Å; centers and widths of the Gaussians that count neighbors."""
_SHELL = 1.6
"""Å; range of the first shell, whose shape is described."""
VECTOR_SIZE = 2 * len(_CENTERS) + 3
"""Length of the vector of an atom."""
_RADIUS_UNIT = 0.75
"""Å; covalent radius of a neighbor of weight zero in the weighted counts (that of carbon, nearly)."""


def environment_vectors(structure: Structure) -> Float[Array, "n d"]:
    """Describe the surroundings of each atom.

    Args:
        structure: any structure, periodic or not.

    Returns:
        Dimensionless numbers, `[n, 15]`, invariant under rotation and permutation.
    """
    pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, ENVIRONMENT_CUTOFF)
    r = np.maximum(pairs.distances, 1e-6)
    ends = structure.positions[pairs.neighbors] + pairs.cell_shifts @ structure.cell
    units = (ends - structure.positions[pairs.centers]) / r[:, None]
    smooth = 0.5 * (1.0 + np.cos(np.pi * r / ENVIRONMENT_CUTOFF))
    counts = np.exp(-(((r[:, None] - _CENTERS) / _WIDTHS) ** 2)) * smooth[:, None]
    sizes = species_radii(structure.numbers[pairs.neighbors]) / _RADIUS_UNIT - 1.0
    shell = (np.exp(-((r / _SHELL) ** 2)) * smooth)[:, None]
    tensors = (units[:, :, None] * units[:, None, :] - np.eye(3) / 3.0).reshape(-1, 9)
    columns = np.concatenate([counts, counts * sizes[:, None], shell * units, shell * tensors], axis=1)
    sums = np.zeros((len(structure), columns.shape[1]))
    occupied = pairs.counts > 0
    if occupied.any():
        sums[occupied] = np.add.reduceat(columns, (np.cumsum(pairs.counts) - pairs.counts)[occupied], axis=0)
    k = 2 * len(_CENTERS)
    dipole, quadrupole = sums[:, k : k + 3], sums[:, k + 3 :].reshape(-1, 3, 3)
    cubed = np.einsum("nij,njk,nki->n", quadrupole, quadrupole, quadrupole)
    shape = [np.linalg.norm(dipole, axis=1), np.linalg.norm(quadrupole, axis=(1, 2)), np.cbrt(cubed)]
    return np.concatenate([sums[:, :k], np.stack(shape, axis=1)], axis=1)
