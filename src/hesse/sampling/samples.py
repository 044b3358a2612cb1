"""Parts of every sample: its name, its labels, random numbers of its own, and a check for collisions."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.structures import Properties, Structure, closest_collision

__all__ = ["MAX_DRAWS", "energy_labels", "has_collision", "rng_from_name", "with_name"]

MAX_DRAWS = 100
"""Maximal number of attempts to draw a sample without collisions."""


def with_name(structure: Structure, parent: Structure, tag: str, name: str) -> Structure:
    """Set id, tag and group of a sample.

    Args:
        structure: the sample.
        parent: the molecule it belongs to.
        tag: tag of the sample.
        name: id of the sample.

    Returns:
        The structure with this id and tag, in the group of the molecule (its id where it has no group).
    """
    return Structure(
        structure.numbers,
        structure.positions,
        id=name,
        cell=structure.cell,
        pbc=structure.pbc,
        charge=structure.charge,
        multiplicity=structure.multiplicity,
        tag=tag,
        group=parent.group or parent.id,
        masses=structure.masses,
    )


def energy_labels(structure: Structure, energy: float, forces: Float[Array, "n 3"] | None = None) -> Properties:
    """Labels of one structure.

    Args:
        structure: the structure.
        energy: eV.
        forces: eV/Å, `[n, 3]`.

    Returns:
        Its energy and forces as labels.
    """
    return Properties.single(len(structure), energy=energy, forces=forces, structure_id=structure.id)


def rng_from_name(seed: int, name: str) -> np.random.Generator:
    """Create a random generator that is a function of a seed and a name.

    Other samples, molecules or processes do not change its numbers.

    Args:
        seed: the seed.
        name: the name, such as the id of a sample.

    Returns:
        The generator.
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def has_collision(structure: Structure, fraction: float = 0.6) -> bool:
    """Test whether two atoms (periodic images included) are too close.

    Args:
        structure: the structure.
        fraction: the smallest allowed distance as a fraction of the sum of covalent radii.

    Returns:
        True if two atoms are closer.
    """
    return closest_collision(structure, fraction) is not None
