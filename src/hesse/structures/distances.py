"""Bonds and collisions from covalent radii (Cordero et al., Dalton Trans. 2832 (2008), as in ASE)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.structures.pairs import find_neighbors
from hesse.structures.species import is_bead, species_radii
from hesse.structures.structure import Structure

__all__ = ["BOND_FACTOR", "COLLISION_FACTOR", "bonded_pairs", "closest_collision"]

COLLISION_FACTOR = 0.6
"""Atoms closer than this fraction of the sum of their covalent radii are considered to collide."""

BOND_FACTOR = 1.3
"""Atoms closer than this multiple of the sum of their covalent radii are considered bonded."""


def closest_collision(structure: Structure, fraction: float = COLLISION_FACTOR) -> tuple[float, int, int] | None:
    """The worst collision of a structure, periodic images included.

    Args:
        structure: any structure.
        fraction: two atoms collide if they are closer than this fraction of the sum of their covalent radii.

    Returns:
        Distance (Å) and indices of the pair with the smallest ratio of distance to sum of radii; None without a
        collision.
    """
    radii = species_radii(structure.numbers)
    # Not structure.neighbors(): it would cache a list with a cutoff that is used only here.
    pairs = find_neighbors(
        structure.positions, structure.cell, structure.pbc, float(2.0 * fraction * radii.max()) + 1e-9
    )
    ratios = pairs.distances / (radii[pairs.centers] + radii[pairs.neighbors])
    if len(ratios) == 0 or ratios.min() >= fraction:
        return None
    k = int(ratios.argmin())
    return float(pairs.distances[k]), int(pairs.centers[k]), int(pairs.neighbors[k])


def bonded_pairs(structure: Structure, factor: float = BOND_FACTOR) -> Int[Array, "bonds 2"]:
    """Bonded pairs of atoms. Bonds across a cell boundary are not included, and beads have none.

    Args:
        structure: any structure.
        factor: two atoms are bonded if they are closer than this multiple of the sum of their covalent radii.

    Returns:
        Indices of the atoms, `[bonds, 2]`, the smaller one first, in ascending order.
    """
    radii = species_radii(structure.numbers)
    longest = float(2.0 * factor * radii.max()) + 1e-9
    pairs = find_neighbors(structure.positions, structure.cell, (False, False, False), longest)
    bonded = pairs.distances < factor * (radii[pairs.centers] + radii[pairs.neighbors])
    bonded &= pairs.centers < pairs.neighbors
    bead = is_bead(structure.numbers)  # whose radius says nothing about bonds
    bonded &= ~(bead[pairs.centers] & bead[pairs.neighbors])
    return np.stack([pairs.centers[bonded], pairs.neighbors[bonded]], axis=1)
