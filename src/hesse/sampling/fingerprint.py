"""Sorted interatomic distances: a fingerprint of a geometry whose differences are in Å.

For each pair of elements the distances between their atoms, in order of size. The fingerprint does not change when the
molecule is moved, turned or mirrored, or when like atoms are renamed, and follows the atoms continuously. Its
root-mean-square difference between two structures is the smallest "distance RMSD" that any matching of the distances
can reach, so that two structures further apart than a tolerance are different beyond doubt. The reverse holds but for
rare pairs of geometries that share all their distances.

Mirror images are one: they have the same energy, and no potential that is built on distances could learn more from
both than from one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.errors import RequestError
from hesse.structures import Structure, find_neighbors

__all__ = ["composition_key", "distance_fingerprint", "fingerprint_distance"]

NEIGHBORS_PER_ELEMENT = 16
"""Neighbors of each kind that count for an atom of a crystal, on average: its first shells."""

CompositionKey = tuple[tuple[int, ...], tuple[bool, bool, bool], int, int]


def composition_key(structure: Structure) -> CompositionKey:
    """What two structures must share to be compared at all: elements, periodic directions, charge and multiplicity."""
    return tuple(sorted(structure.numbers.tolist())), structure.pbc, structure.charge, structure.multiplicity


def distance_fingerprint(structure: Structure) -> Float[Array, "distances"]:
    """Interatomic distances, Å: sorted within each pair of elements, pairs of elements in order of atomic numbers.

    All structures of one `composition_key` have fingerprints of one length: n(n−1)/2 for molecules. In a crystal the
    shortest distances of each kind count, images included, so many that an atom has 16 neighbors of each element on
    average; supercells of different size are not comparable.
    """
    first, second, distances = _periodic_pairs(structure) if structure.periodic else _open_pairs(structure)
    z = structure.numbers
    low, high = np.minimum(z[first], z[second]), np.maximum(z[first], z[second])
    elements, counts = np.unique(z, return_counts=True)
    by_element_pair = []
    for a, count in zip(elements, counts, strict=True):
        for b in elements[elements >= a]:
            sorted_distances = np.sort(distances[(low == a) & (high == b)])
            by_element_pair.append(
                sorted_distances[: NEIGHBORS_PER_ELEMENT * count] if structure.periodic else sorted_distances
            )
    return np.concatenate(by_element_pair)


def fingerprint_distance(one: Structure, other: Structure) -> float:
    """Root-mean-square difference of two fingerprints, Å; 0 for the same geometry (or its mirror image).

    Random displacements of r Å per atom (root mean square) make it about √(2/3) r, less where like distances change
    places.

    Raises:
        RequestError: structures that cannot be compared (other elements, charge, multiplicity or periodicity).
    """
    if composition_key(one) != composition_key(other):
        raise RequestError(
            f'"{one.id}" and "{other.id}" cannot be compared: their elements, charge, multiplicity or periodic '
            "directions differ"
        )
    difference = distance_fingerprint(one) - distance_fingerprint(other)
    return float(np.sqrt(np.mean(difference**2))) if len(difference) else 0.0


PairDistances = tuple[Int[Array, "pairs"], Int[Array, "pairs"], Float[Array, "pairs"]]


def _open_pairs(structure: Structure) -> PairDistances:
    first, second = np.triu_indices(len(structure), 1)
    vectors = structure.positions[first] - structure.positions[second]
    return first, second, np.linalg.norm(vectors, axis=1)


def _periodic_pairs(structure: Structure) -> PairDistances:
    """Directed pairs, images included, out to where every pair of elements has enough of them."""
    elements, counts = np.unique(structure.numbers, return_counts=True)
    cutoff = 5.0
    while True:
        pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, cutoff)
        z, w = structure.numbers[pairs.centers], structure.numbers[pairs.neighbors]
        enough = all(
            ((np.minimum(z, w) == a) & (np.maximum(z, w) == b)).sum() >= NEIGHBORS_PER_ELEMENT * count
            for a, count in zip(elements, counts, strict=True)
            for b in elements[elements >= a]
        )
        if enough:
            return pairs.centers, pairs.neighbors, pairs.distances
        cutoff *= 1.3
