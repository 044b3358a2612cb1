"""Species of atoms and of beads: names, radii and masses of elements and of the bead types of coarse-grained models.

Elements have the numbers 1 to 118. A bead type has a name of one to eight letters, digits or underscores, and its
number is the name itself, read as a number of base 64, plus a million. So a number needs no table of names beside it:
files and models that hold the same number mean the same bead type, and data of several sources can be joined.
"""

from __future__ import annotations

import re
import string
from typing import Final

import numpy as np
from ase.data import atomic_masses, chemical_symbols, covalent_radii
from numpy.typing import ArrayLike, NDArray

from hesse.errors import GeometryError

__all__ = [
    "BEAD_RADIUS",
    "LAST_ELEMENT",
    "bead_number",
    "chemical_formula",
    "is_bead",
    "is_species",
    "species_name",
    "species_names",
    "species_radii",
    "standard_masses",
]

LAST_ELEMENT: Final = 118
"""The largest atomic number; numbers of bead types are larger."""
_OFFSET: Final = 1_000_000
"""Added to the code of a name, so that a wrong atomic number such as 119 is no bead type."""
BEAD_RADIUS: Final = 1.0
"""Å; stands for the covalent radius of a bead beside atoms and in descriptions of surroundings. Whether two beads
collide is decided by data, see `hesse.structures.collision_distances`."""
_CHARACTERS: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "_"
_LONGEST: Final = 8
_NAME: Final = re.compile(rf"\w{{1,{_LONGEST}}}", re.ASCII)


def bead_number(name: str) -> int:
    """The number of a bead type.

    Args:
        name: one to eight letters, digits or underscores, such as "MEOH"; upper and lower case are different.

    Returns:
        A number above a million, the same in all versions of Hesse.

    Raises:
        GeometryError: not such a name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise GeometryError(
            f"expected the name of a bead type, one to {_LONGEST} letters, digits or underscores such as MEOH, got "
            f"{str(name)[:40]!r}"
        )
    code = 0
    for character in name:
        code = 64 * code + _CHARACTERS.index(character) + 1
    return _OFFSET + code


def _bead_name(number: int) -> str:
    """The name of a bead type; empty if no name has this number."""
    code, characters = number - _OFFSET, ""
    while code > 0:
        code, digit = divmod(code, 64)
        if digit == 0:
            return ""
        characters = _CHARACTERS[digit - 1] + characters
    return characters if len(characters) <= _LONGEST else ""


def is_species(number: int) -> bool:
    """Whether a number is that of an element or of a bead type.

    Args:
        number: any whole number.

    Returns:
        True if so.
    """
    return 1 <= number <= LAST_ELEMENT or bool(_bead_name(number))


def is_bead(numbers: ArrayLike) -> NDArray[np.bool_]:
    """Which numbers are those of bead types.

    Args:
        numbers: numbers of elements and bead types.

    Returns:
        True for each number above 118.
    """
    return np.asarray(numbers) > LAST_ELEMENT


def species_name(number: int) -> str:
    """The name of an element or of a bead type.

    Args:
        number: its number.

    Returns:
        "O" for 8, "MEOH" for `bead_number("MEOH")`.

    Raises:
        GeometryError: neither an element nor a bead type.
    """
    if 1 <= number <= LAST_ELEMENT:
        return str(chemical_symbols[number])
    name = _bead_name(int(number))
    if not name:
        raise GeometryError(f"{number} is neither an atomic number (1 to {LAST_ELEMENT}) nor the number of a bead type")
    return name


def species_names(numbers: ArrayLike) -> list[str]:
    """Names of the elements and bead types of atoms.

    Args:
        numbers: number of each atom.

    Returns:
        Name of each.

    Raises:
        GeometryError: see `species_name`.
    """
    array = np.asarray(numbers)
    names = {z: species_name(z) for z in np.unique(array).tolist()}
    return [names[z] for z in array.tolist()]


def chemical_formula(numbers: ArrayLike) -> str:
    """Formula of a molecule or of a box of beads.

    Args:
        numbers: number of each atom.

    Returns:
        The formula of the elements in Hill's order, followed by bead types in alphabetic order: "CH4O", "MEOH1000".
    """
    from ase.symbols import Symbols

    array = np.asarray(numbers, dtype=np.int64)
    bead = is_bead(array)
    elements = Symbols(array[~bead]).get_chemical_formula() if not bead.all() else ""
    types, counts = np.unique(array[bead], return_counts=True)
    parts = sorted(f"{_bead_name(z)}{c if c > 1 else ''}" for z, c in zip(types.tolist(), counts.tolist(), strict=True))
    return elements + "".join(parts)


def species_radii(numbers: ArrayLike) -> NDArray[np.float64]:
    """Covalent radii (Cordero et al., Dalton Trans. 2832 (2008), as in ASE); `BEAD_RADIUS` for beads.

    Args:
        numbers: numbers of elements and bead types.

    Returns:
        Å, of the same shape.
    """
    return _from_table(covalent_radii, numbers, BEAD_RADIUS)


def standard_masses(numbers: ArrayLike) -> NDArray[np.float64]:
    """Standard atomic masses, as in ASE; NaN for beads, whose masses depend on their mapping.

    Args:
        numbers: numbers of elements and bead types.

    Returns:
        u, of the same shape.
    """
    return _from_table(atomic_masses, numbers, np.nan)


def _from_table(table: NDArray[np.float64], numbers: ArrayLike, of_beads: float) -> NDArray[np.float64]:
    array = np.asarray(numbers)
    bead = is_bead(array)
    values: NDArray[np.float64] = table[np.where(bead, 0, array)]
    return np.where(bead, of_beads, values) if bead.any() else values
