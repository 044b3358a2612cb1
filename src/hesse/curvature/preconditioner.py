"""Preconditioner of Hessian eigensolvers: a model Hessian of springs between neighboring atoms.

It approximates the stiff directions (bonds and angles) and nothing else. Its quality determines the number of
iterations of an eigensolver, not the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.structures import Structure, find_neighbors, species_radii

__all__ = ["model_hessian", "model_hessian_preconditioner"]

STIFFNESS = 40.0
"""eV/Å², of a bond; the scale of the stretching constants of Lindh, Bernhardsson, Karlström, Malmqvist, Chem. Phys.
Lett. 241, 423 (1995), of which this model is a simplification."""
DECAY = 2.5
"""Decay of the stiffness, `STIFFNESS exp(−DECAY (x² − 1))`; x is the distance in units of the sum of covalent radii."""
TRANSVERSE_RATIO = 0.05
"""Stiffness perpendicular to a pair, relative to that along it."""
CUTOFF_FACTOR = 2.2
"""Pairs beyond this multiple of the sum of their covalent radii have no spring."""


def model_hessian_preconditioner(
    structure: Structure, weights: Float[Array, "3n"], shift: float
) -> Callable[[Float[Array, "3n m"]], Float[Array, "3n m"]]:
    """The preconditioner `r ↦ (W K W + shift)⁻¹ r` with the model Hessian K and the diagonal matrix W of `weights`.

    The sparse matrix is factorized once, which takes a fraction of a second for thousands of atoms.

    Args:
        structure: any structure.
        weights: weight of each coordinate, `[3n]`: ones, or 1/√mass for mass-weighted Hessians.
        shift: positive, in the unit of W K W; makes the matrix invertible.

    Returns:
        A function of one or several columns `[3n, m]`.
    """
    from scipy.sparse import diags, identity
    from scipy.sparse.linalg import splu

    scale = diags(weights)
    weighted = scale @ model_hessian(structure) @ scale
    return splu((weighted + shift * identity(3 * len(structure))).tocsc()).solve


def model_hessian(structure: Structure) -> Any:
    """The model Hessian: springs between neighboring atoms.

    Args:
        structure: any structure.

    Returns:
        A sparse matrix of SciPy, eV/Å², `[3n, 3n]`; positive semidefinite.
    """
    from scipy.sparse import coo_matrix

    n = len(structure)
    radii = species_radii(structure.numbers)
    pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, float(2.0 * CUTOFF_FACTOR * radii.max()))
    x = pairs.distances / (radii[pairs.centers] + radii[pairs.neighbors])
    within = (x < CUTOFF_FACTOR) & (pairs.centers != pairs.neighbors)
    centers, neighbors = pairs.centers[within], pairs.neighbors[within]
    vectors = structure.positions[neighbors] + pairs.cell_shifts[within] @ structure.cell - structure.positions[centers]
    units = vectors / pairs.distances[within, None]
    strength = STIFFNESS * np.exp(-DECAY * (np.minimum(x[within], CUTOFF_FACTOR) ** 2 - 1.0)).clip(max=2.0)
    blocks = units[:, :, None] * units[:, None] * (1.0 - TRANSVERSE_RATIO) + TRANSVERSE_RATIO * np.eye(3)
    blocks *= 0.5 * strength[:, None, None]  # both directions of a pair are listed
    rows, columns, values = [], [], []
    for a, b, sign in (
        (centers, centers, 1.0),
        (neighbors, neighbors, 1.0),
        (centers, neighbors, -1.0),
        (neighbors, centers, -1.0),
    ):
        rows.append((3 * a[:, None, None] + np.arange(3)[None, :, None] + np.zeros((1, 1, 3), dtype=int)).ravel())
        columns.append((3 * b[:, None, None] + np.arange(3)[None, None] + np.zeros((1, 3, 1), dtype=int)).ravel())
        values.append(sign * blocks.ravel())
    shape = (3 * n, 3 * n)
    return coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape).tocsr()
