"""Bonds and collisions from covalent radii (Cordero et al., Dalton Trans. 2832 (2008), as in ASE); beads have none, and
collide by the distances that data have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.structures.pairs import find_neighbors
from hesse.structures.species import is_bead, species_radii
from hesse.structures.structure import Structure

__all__ = [
    "BEAD_OVERLAP",
    "BOND_FACTOR",
    "COLLISION_FACTOR",
    "Contacts",
    "bonded_pairs",
    "closest_collision",
    "collision_distances",
]

COLLISION_FACTOR = 0.6
"""Atoms closer than this fraction of the sum of their covalent radii are considered to collide."""

BOND_FACTOR = 1.3
"""Atoms closer than this multiple of the sum of their covalent radii are considered bonded."""

BEAD_OVERLAP = 0.5
"""Å; two beads closer than this are considered to collide where no data say how close they come."""

_CONTACT_FACTOR = 0.5
"""Beads closer than this fraction of the closest distance of their types in the data are considered to collide."""
_SAME_PLACE = 0.05
"""Å; beads closer than this collide whatever the data say."""

Contacts = Mapping[tuple[int, int], float]
"""Å, the closest distance of two bead types (their numbers, the smaller first) in data."""


def collision_distances(
    first: Int[Array, "pairs"], second: Int[Array, "pairs"], contacts: Contacts | None = None
) -> Float[Array, "pairs"]:
    """The distances below which pairs collide: 0.6 of the sum of their covalent radii, and for two beads half the
    closest distance of their types in data.

    Args:
        first: atomic numbers or bead types.
        second: those of the other ends.
        contacts: closest distances of bead types; pairs of beads that are not in them collide below `BEAD_OVERLAP`.

    Returns:
        Å.
    """
    distances = COLLISION_FACTOR * (species_radii(first) + species_radii(second))
    beads = np.flatnonzero(is_bead(first) & is_bead(second))
    distances[beads] = BEAD_OVERLAP
    if contacts and len(beads):
        low, high = (f(first[beads], second[beads]) for f in (np.minimum, np.maximum))
        for (a, b), closest in contacts.items():
            distances[beads[(low == a) & (high == b)]] = max(_CONTACT_FACTOR * closest, _SAME_PLACE)
    return distances


def closest_collision(
    structure: Structure, fraction: float = COLLISION_FACTOR, contacts: Contacts | None = None
) -> tuple[float, int, int] | None:
    """The worst collision of a structure, periodic images included.

    Args:
        structure: any structure.
        fraction: two atoms collide if they are closer than this fraction of the sum of their covalent radii. Limits of
            beads, see `collision_distances`, change in proportion.
        contacts: closest distances of bead types in data.

    Returns:
        Distance (Å) and indices of the pair with the smallest ratio of distance to limit; None without a collision.
    """
    numbers, scale = structure.numbers, fraction / COLLISION_FACTOR
    kinds = np.unique(numbers)
    first, second = (kinds[i] for i in np.triu_indices(len(kinds)))
    longest = float(scale * collision_distances(first, second, contacts).max())
    # Not structure.neighbors(): it would cache a list with a cutoff that is used only here.
    pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, longest + 1e-9)
    limits = collision_distances(numbers[pairs.centers], numbers[pairs.neighbors], contacts)
    ratios = pairs.distances / limits
    if len(ratios) == 0 or ratios.min() >= scale:
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
