"""Displacements of single atoms of a crystal from which the space group generates its whole Hessian."""

from __future__ import annotations

import itertools
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.errors import GeometryError, first_line
from hesse.runtime.imports import import_optional
from hesse.structures import Structure, check_cell

__all__ = ["count_irreducible_directions", "irreducible_directions"]

_TOLERANCE = 1e-5
"""Å; atoms that an operation leaves apart by less are equal. That of phonopy."""
_MIN_ANGLE = 0.1
"""Smallest singular value of three unit vectors that count as independent: those of a plane have zero."""
_CANDIDATES: list[tuple[int, ...]] = sorted(
    (d for d in itertools.product((0, 1, -1), repeat=3) if next((x for x in d if x), 0) > 0),
    key=lambda d: (np.abs(d).sum(), -sum(d)),
)
"""Directions in lattice vectors that are tried: along one of them, then along sums of two and three."""


def irreducible_directions(structure: Structure) -> Float[Array, "directions n 3"]:
    """Find displacements of single atoms whose Hessian-vector products determine the Hessian of a crystal: the others
    are their images by the space group. Copper needs one, rock salt two, and a crystal without symmetry 3N.

    Args:
        structure: a crystal, periodic in three directions; often a supercell.

    Returns:
        One unit displacement of one atom each, the shortest in lattice vectors that serve.

    Raises:
        GeometryError: not a crystal, a cell of one atom, or a space group that is not found.
        MissingExtraError: spglib is not installed.
    """
    atoms, vectors = _directions(structure)
    directions = np.zeros((len(atoms), len(structure), 3))
    directions[np.arange(len(atoms)), atoms] = vectors
    return directions


def count_irreducible_directions(structure: Structure) -> int:
    """Count the displacements that `irreducible_directions` finds.

    Args:
        structure: see there.

    Returns:
        Their number.

    Raises:
        GeometryError: see there.
        MissingExtraError: see there.
    """
    return len(_directions(structure)[0])


@lru_cache(maxsize=4096)  # a campaign asks for the same crystals again and again; structures do not change
def _directions(structure: Structure) -> tuple[Int[Array, "directions"], Float[Array, "directions 3"]]:
    """The displaced atoms, and unit vectors."""
    if not all(structure.pbc):
        raise GeometryError(
            f'structure "{structure.id}" is not periodic in three directions: symmetry-adapted directions are those of '
            "crystals"
        )
    if len(structure) == 1:
        raise GeometryError(
            f'structure "{structure.id}" has one atom: moving it moves the whole crystal, so that H v is zero. Give a '
            "supercell"
        )
    check_cell(structure)
    group = _space_group(structure)
    fractional, cell = structure.positions @ np.linalg.inv(structure.cell), np.asarray(structure.cell)
    atoms, vectors = list[int](), list[Float[Array, "3"]]()
    for atom in np.unique(group.equivalent_atoms):
        moved = group.rotations @ fractional[atom] + group.translations - fractional[atom]
        keeps = np.linalg.norm((moved - np.rint(moved)) @ cell, axis=1) < 10 * _TOLERANCE
        rotations = group.rotations[keeps]
        for vector in _spanning(rotations, cell):
            atoms.append(int(atom))
            vectors.append(vector)
    return np.array(atoms), np.array(vectors)


def _space_group(structure: Structure) -> Any:
    """spglib's data set of the crystal."""
    spglib = import_optional("spglib", extra="materials", purpose="symmetry-adapted directions")
    cell = (structure.cell, structure.positions @ np.linalg.inv(structure.cell), structure.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its next version
        try:
            found, reason = spglib.get_symmetry_dataset(cell, symprec=_TOLERANCE), "spglib finds none"
        except Exception as error:  # of any type, by version
            found, reason = None, f"{type(error).__name__}: {first_line(error)}"
    if found is None:
        raise GeometryError(f'structure "{structure.id}": no space group ({reason})')
    return found


def _spanning(rotations: Int[Array, "operations 3 3"], cell: Float[Array, "3 3"]) -> list[Float[Array, "3"]]:
    """The fewest unit vectors whose images by the operations that keep an atom in its place span all directions."""
    candidates = [np.array(candidate) for candidate in _CANDIDATES]
    orbits = [_normalized((rotations @ candidate) @ cell) for candidate in candidates]
    for count in (1, 2, 3):
        for chosen in itertools.combinations(range(len(candidates)), count):
            images = np.concatenate([orbits[k] for k in chosen])
            if np.linalg.eigvalsh(images.T @ images)[0] > _MIN_ANGLE**2:
                return [_normalized(candidates[k] @ cell) for k in chosen]
    raise GeometryError("the lattice vectors lie nearly in a plane")


def _normalized(vectors: Float[Array, "*some 3"]) -> Float[Array, "*some 3"]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
