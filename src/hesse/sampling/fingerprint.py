"""Sorted interatomic distances: a fingerprint of a geometry, with differences in Å.

The fingerprint lists, for each pair of elements, the distances between their atoms in order of size. It is invariant
under translation, rotation, reflection and permutation of atoms of one element, and a continuous function of the
positions. The root-mean-square difference of two fingerprints is the smallest "distance RMSD" over all assignments of
the distances, so that two structures whose fingerprints differ by more than a tolerance are certainly different. The
reverse holds except for rare pairs of geometries that have the same distances.

Mirror images have the same fingerprint: they have the same energy, and a potential that depends on distances learns
nothing more from both than from one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.errors import RequestError
from hesse.structures import Structure, find_neighbors

__all__ = ["composition_key", "distance_fingerprint", "fingerprint_distance"]

NEIGHBORS_PER_ELEMENT = 16
"""Average number of neighbors of each element per atom of a crystal that the fingerprint contains: the first shells."""

CompositionKey = tuple[tuple[int, ...], tuple[bool, bool, bool], int, int]


def composition_key(structure: Structure) -> CompositionKey:
    """The key that two structures must share to be compared.

    Args:
        structure: the structure.

    Returns:
        Sorted atomic numbers, periodic directions, charge and multiplicity.
    """
    return tuple(sorted(structure.numbers.tolist())), structure.pbc, structure.charge, structure.multiplicity


def distance_fingerprint(structure: Structure) -> Float[Array, "distances"]:
    """Sorted interatomic distances.

    Structures with the same `composition_key` have fingerprints of the same length: n(n−1)/2 for molecules. For a
    crystal the shortest distances of each pair of elements are used, including periodic images: as many as give an atom
    16 neighbors of each element on average. Supercells of different size cannot be compared.

    Args:
        structure: the structure.

    Returns:
        Distances, Å, sorted within each pair of elements; pairs of elements are in order of atomic numbers.
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
    """Root-mean-square difference of two fingerprints.

    Random displacements of r Å per atom (root mean square) change it by about √(2/3) r, less where distances of similar
    length exchange their places in the order.

    Args:
        one: a structure.
        other: another structure.

    Returns:
        The difference, Å; 0 for the same geometry or its mirror image.

    Raises:
        RequestError: the structures differ in elements, charge, multiplicity or periodic directions.
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
    """Directed pairs, including images, up to a cutoff within which every pair of elements has enough of them."""
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
