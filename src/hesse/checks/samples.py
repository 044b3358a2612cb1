"""Structures to try a potential on, made of the elements it knows: the same ones every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike, NDArray

from hesse.structures import Structure

__all__ = ["COMMON", "built", "chosen_elements", "crystal", "grown_molecule", "line", "lone_atom", "sample_structures"]

COMMON = (1, 6, 7, 8)
"""Elements of the samples where a potential knows any: most of chemistry's data hold them."""
MOST = 8
"""So many elements are tried at most."""
SIZES = (3, 5, 8)
SHORTEST, LONGEST = 0.95, 1.15
"""Bonds, in units of the sum of covalent radii."""
APART = 1.2
"""Atoms that are not bonded stay at least so far apart, in the same units."""


def chosen_elements(known: Sequence[int]) -> tuple[int, ...]:
    """Up to eight of the elements that a potential knows (all, if `known` is empty): common ones first, the rest spread
    over the periodic table."""
    if not known:
        return COMMON
    common = [z for z in COMMON if z in known]
    others = [z for z in sorted(known) if z not in COMMON]
    places = np.linspace(0, len(others) - 1, min(len(others), MOST - len(common))).round().astype(int)
    return tuple(common + [others[k] for k in places])


def sample_structures(elements: Sequence[int]) -> tuple[Structure, ...]:
    """Molecules of 3, 5 and 8 atoms and a crystal; every element occurs."""
    ordered = list(elements)
    molecules = [grown_molecule(ordered, size, seed=size) for size in SIZES]
    return (*molecules, crystal(ordered))


def built(numbers: Sequence[int], positions: ArrayLike, name: str, *, cell: ArrayLike | None = None) -> Structure:
    """A structure; periodic in all directions where a cell is given."""
    lattice = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    pbc = (False, False, False) if cell is None else (True, True, True)
    return Structure(np.asarray(numbers), np.asarray(positions, dtype=np.float64), id=name, cell=lattice, pbc=pbc)


def grown_molecule(elements: Sequence[int], size: int, *, seed: int) -> Structure:
    """Atoms bonded to one another at random with sensible distances; elements in turn, in random order."""
    rng = np.random.default_rng(seed)
    numbers = [int(elements[k % len(elements)]) for k in range(size)]
    rng.shuffle(numbers)
    radii = covalent_radii[numbers]
    places = [rng.normal(size=3)]
    while len(places) < size:
        k, partner = len(places), rng.integers(len(places))
        length = rng.uniform(SHORTEST, LONGEST) * (radii[k] + radii[partner])
        place = places[partner] + length * _unit(rng)
        gaps = np.linalg.norm(np.array(places) - place, axis=1) / (radii[:k] + radii[k])
        if np.delete(gaps, partner).min(initial=np.inf) > APART:
            places.append(place)
    return built(numbers, places, f"molecule of {size} atoms")


def crystal(elements: Sequence[int], *, seed: int = 4) -> Structure:
    """Four atoms in a skewed cell, smaller than the usual cutoffs; some stand outside of it."""
    rng = np.random.default_rng(seed)
    numbers = [int(elements[k % len(elements)]) for k in range(4)]
    size = 2.6 * 2.0 * float(covalent_radii[numbers].mean())
    cell = size * (np.eye(3) + 0.07 * rng.normal(size=(3, 3)))
    corners = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    fractional = corners + 0.03 * rng.normal(size=(4, 3)) + rng.integers(-1, 2, size=(4, 3))
    return built(numbers, fractional @ cell, "crystal of 4 atoms", cell=cell)


def line(elements: Sequence[int], size: int, axis: Sequence[float]) -> Structure:
    """Atoms on a straight line."""
    numbers = [int(elements[k % len(elements)]) for k in range(size)]
    radii = covalent_radii[numbers]
    along = np.concatenate([[0.0], np.cumsum(radii[1:] + radii[:-1])])
    direction = np.array(axis, dtype=np.float64) / np.linalg.norm(axis)
    return built(numbers, along[:, None] * direction, f"line of {size} atoms")


def lone_atom(number: int) -> Structure:
    """One atom."""
    return built([number], [[0.3, -0.2, 0.7]], f"atom with Z = {number}")


def _unit(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))
