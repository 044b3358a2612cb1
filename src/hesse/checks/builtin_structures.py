"""Built-in structures to check a potential on, made of its elements; the same ones every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hesse.structures import Structure, species_radii

__all__ = [
    "COMMON_ELEMENTS",
    "choose_elements",
    "distorted_crystal",
    "grow_molecule",
    "linear_molecule",
    "make_structure",
    "sample_structures",
    "single_atom",
]

COMMON_ELEMENTS = (1, 6, 7, 8)
"""Elements used for a potential of any elements: most data sets in chemistry contain them."""
MAX_ELEMENTS = 8
"""Largest number of elements used."""
MOLECULE_SIZES = (3, 5, 8)
MIN_BOND, MAX_BOND = 0.95, 1.15
"""Bond lengths, in units of the sum of covalent radii."""
MIN_NONBONDED = 1.2
"""Smallest distance of nonbonded atoms, in the same units."""


def choose_elements(known: Sequence[int]) -> tuple[int, ...]:
    """Choose up to eight elements: common ones first, the others spread over the periodic table.

    Args:
        known: atomic numbers that a potential supports; empty for all.

    Returns:
        Atomic numbers.
    """
    if not known:
        return COMMON_ELEMENTS
    common = [z for z in COMMON_ELEMENTS if z in known]
    others = [z for z in sorted(known) if z not in COMMON_ELEMENTS]
    indices = np.linspace(0, len(others) - 1, min(len(others), MAX_ELEMENTS - len(common))).round().astype(int)
    return tuple(common + [others[k] for k in indices])


def sample_structures(elements: Sequence[int]) -> tuple[Structure, ...]:
    """Molecules of 3, 5 and 8 atoms and a crystal, which together contain every element.

    Args:
        elements: at most eight atomic numbers.

    Returns:
        Three molecules and one crystal.
    """
    ordered = list(elements)
    molecules = [grow_molecule(ordered, size, seed=size) for size in MOLECULE_SIZES]
    return (*molecules, distorted_crystal(ordered))


def make_structure(
    numbers: Sequence[int], positions: ArrayLike, name: str, *, cell: ArrayLike | None = None
) -> Structure:
    """A structure from plain lists.

    Args:
        numbers: atomic numbers.
        positions: Å.
        name: id of the structure.
        cell: lattice vectors as rows, Å; the structure is then periodic in three directions.

    Returns:
        The structure.
    """
    lattice = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    pbc = (False, False, False) if cell is None else (True, True, True)
    return Structure(np.asarray(numbers), np.asarray(positions, dtype=np.float64), id=name, cell=lattice, pbc=pbc)


def grow_molecule(elements: Sequence[int], size: int, *, seed: int) -> Structure:
    """A random molecule with realistic bond lengths, grown atom by atom.

    Args:
        elements: atomic numbers, used in turn and shuffled.
        size: number of atoms.
        seed: seed of the random numbers.

    Returns:
        The molecule.
    """
    rng = np.random.default_rng(seed)
    numbers = [int(elements[k % len(elements)]) for k in range(size)]
    rng.shuffle(numbers)
    radii = species_radii(numbers)
    positions = [rng.normal(size=3)]
    while len(positions) < size:
        k, partner = len(positions), rng.integers(len(positions))
        length = rng.uniform(MIN_BOND, MAX_BOND) * (radii[k] + radii[partner])
        position = positions[partner] + length * _random_unit_vector(rng)
        distances = np.linalg.norm(np.array(positions) - position, axis=1) / (radii[:k] + radii[k])
        if np.delete(distances, partner).min(initial=np.inf) > MIN_NONBONDED:
            positions.append(position)
    return make_structure(numbers, positions, f"molecule of {size} atoms")


def distorted_crystal(elements: Sequence[int], *, seed: int = 4) -> Structure:
    """Four atoms in a skewed cell that is smaller than usual cutoffs; some are outside of the cell.

    Args:
        elements: atomic numbers, used in turn.
        seed: seed of the random numbers.

    Returns:
        The crystal.
    """
    rng = np.random.default_rng(seed)
    numbers = [int(elements[k % len(elements)]) for k in range(4)]
    size = 2.6 * 2.0 * float(species_radii(numbers).mean())
    cell = size * (np.eye(3) + 0.07 * rng.normal(size=(3, 3)))
    corners = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    fractional = corners + 0.03 * rng.normal(size=(4, 3)) + rng.integers(-1, 2, size=(4, 3))
    return make_structure(numbers, fractional @ cell, "crystal of 4 atoms", cell=cell)


def linear_molecule(elements: Sequence[int], size: int, axis: Sequence[float]) -> Structure:
    """Atoms on a straight line.

    Args:
        elements: atomic numbers, used in turn.
        size: number of atoms.
        axis: direction of the line.

    Returns:
        The molecule; neighbors are at the sum of their covalent radii.
    """
    numbers = [int(elements[k % len(elements)]) for k in range(size)]
    radii = species_radii(numbers)
    along = np.concatenate([[0.0], np.cumsum(radii[1:] + radii[:-1])])
    direction = np.array(axis, dtype=np.float64) / np.linalg.norm(axis)
    return make_structure(numbers, along[:, None] * direction, f"line of {size} atoms")


def single_atom(number: int) -> Structure:
    """One atom.

    Args:
        number: atomic number.

    Returns:
        The atom.
    """
    return make_structure([number], [[0.3, -0.2, 0.7]], f"atom with Z = {number}")


def _random_unit_vector(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))
