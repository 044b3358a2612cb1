"""Which atoms touch: distances judged by covalent radii (Cordero et al., Dalton Trans. 2832 (2008), as in ASE)."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.structures.neighbors import find_neighbors
from hesse.structures.structure import Structure

__all__ = ["BOND_FACTOR", "COLLISION_FACTOR", "bonded_pairs", "closest_collision"]

COLLISION_FACTOR = 0.6
"""Atoms closer than this fraction of the sum of their covalent radii have collided."""

BOND_FACTOR = 1.3
"""Atoms closer than this multiple of the sum of their covalent radii are bonded."""


def closest_collision(structure: Structure, fraction: float = COLLISION_FACTOR) -> tuple[float, int, int] | None:
    """Distance (Å) and indices of two atoms closer than `fraction` of the sum of their covalent radii, images
    included: the pair for which it is the smallest fraction. None when there is none."""
    radii = covalent_radii[structure.numbers]
    # Found afresh: a list kept by the structure would outlive this one question.
    pairs = find_neighbors(
        structure.positions, structure.cell, structure.pbc, float(2.0 * fraction * radii.max()) + 1e-9
    )
    ratios = pairs.distances / (radii[pairs.centers] + radii[pairs.neighbors])
    if len(ratios) == 0 or ratios.min() >= fraction:
        return None
    k = int(ratios.argmin())
    return float(pairs.distances[k]), int(pairs.centers[k]), int(pairs.neighbors[k])


def bonded_pairs(structure: Structure, factor: float = BOND_FACTOR) -> Int[Array, "bonds 2"]:
    """Pairs of atoms closer than `factor` times the sum of their covalent radii, in order. Bonds across the border of
    a cell are left out: their length is not that of the two atoms' positions."""
    first, second = np.triu_indices(len(structure), 1)
    radii = covalent_radii[structure.numbers]
    distances = np.linalg.norm(structure.positions[first] - structure.positions[second], axis=1)
    bonded = distances < factor * (radii[first] + radii[second])
    return np.stack([first[bonded], second[bonded]], axis=1)
