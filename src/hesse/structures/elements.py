"""Elements as files name them: symbols, atomic numbers, heavy hydrogen, and names of what is no atom."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import ArrayLike, NDArray

from hesse.errors import GeometryError
from hesse.structures.species import standard_masses

__all__ = ["own_masses", "parse_element", "parse_elements"]

_HEAVY_HYDROGEN: Final = {"D": 2.01410177812, "T": 3.0160492779}
"""Masses of deuterium and tritium, u (AME2020)."""
_NO_ATOM: Final = (
    (re.compile(r"q\d*$|q-?\d+\.\d*$|pc\d*$|(lp|mm)$", re.IGNORECASE), "a point charge"),
    (re.compile(r"(x|xx|du|dummy|da|tv|vc|nn)\d*$", re.IGNORECASE), "a dummy atom or lattice vector"),
    (
        re.compile(
            r"@.+|[a-z]{1,2}:$|(bq|gh|ghost)([-_ ]?[a-z]{0,2})?\d*$|gh\(.+\)$|.+[-_(](bq|gh|ghost)\)?$", re.IGNORECASE
        ),
        "a ghost atom",
    ),
)
_LABEL: Final = re.compile(r"([A-Z][a-z]?)\d+[+-]?$")
"""A symbol with a number, such as O1; in "CA1" it is not certain which letters are the symbol."""
_ROUNDING: Final = 2e-4
"""Relative differences of standard atomic masses between usual tables; the masses of isotopes differ by more."""


def parse_element(text: str | int) -> tuple[int, float | None]:
    """Read a chemical symbol or an atomic number.

    Args:
        text: "O", "o", "O1", 8, "8", or "D" and "T" for heavy hydrogen.

    Returns:
        The atomic number, and the mass in u if the name states an isotope; otherwise None.

    Raises:
        GeometryError: not an element: an unknown name, or a ghost atom, dummy atom or point charge, which is named.
    """
    name = str(text).strip()
    if re.fullmatch(r"[+-]?\d+", name):
        number = int(name[:5])
        if number <= 0:
            raise GeometryError(f'"{name}" is no atom: numbers below 1 stand for ghost or dummy atoms; remove them')
        if number > 118:
            raise GeometryError(f'"{name}" is no atomic number; expected 1 to 118')
        return number, None
    number = atomic_numbers.get(name.capitalize(), 0)
    if number:
        return number, None
    if name.upper() in _HEAVY_HYDROGEN:
        return 1, _HEAVY_HYDROGEN[name.upper()]
    for pattern, kind in _NO_ATOM:
        if pattern.match(name):
            raise GeometryError(f'"{name[:20]}" is {kind}, which no potential knows; remove it')
    label = _LABEL.match(name)
    symbol = label.group(1) if label else ""
    if symbol.upper() in _HEAVY_HYDROGEN:
        return 1, _HEAVY_HYDROGEN[symbol.upper()]
    number = atomic_numbers.get(symbol.capitalize(), 0)
    if not number:
        raise GeometryError(f'"{name[:20]}" is not an element; expected a symbol such as O, or an atomic number')
    return number, None


def parse_elements(names: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Read the elements of all atoms of a structure.

    Args:
        names: a symbol or an atomic number for each atom.

    Returns:
        Atomic numbers; and masses in u if any name states an isotope, otherwise None.

    Raises:
        GeometryError: see `parse_element`; the message has the index of the atom.
    """
    known: dict[str, tuple[int, float | None]] = {}
    for i, name in enumerate(names):
        if name not in known:
            try:
                known[name] = parse_element(name)
            except GeometryError as error:
                raise GeometryError(f"atom {i}: {error}") from None
    numbers = np.array([known[name][0] for name in names], dtype=np.int64)
    if all(mass is None for _, mass in known.values()):
        return numbers, None
    masses = [known[name][1] for name in names]
    return numbers, np.array([atomic_masses[z] if m is None else m for z, m in zip(numbers, masses, strict=True)])


def own_masses(numbers: ArrayLike, masses: ArrayLike | None) -> NDArray[np.float64] | None:
    """Masses that a file or program states, where they say more than the elements do.

    Args:
        numbers: atomic numbers, `[atoms]`.
        masses: u, `[atoms]`; None if not stated.

    Returns:
        The masses; None if they are the standard atomic masses, up to the rounding of usual tables.

    Raises:
        GeometryError: another number of masses than of atoms, or masses that are not positive numbers.
    """
    if masses is None:
        return None
    m, z = np.asarray(masses, dtype=np.float64), np.asarray(numbers)
    if m.shape != z.shape or not (np.isfinite(m).all() and (m > 0).all()):
        raise GeometryError(f"expected {z.size} positive masses in u, got {m.tolist()[:8]}")
    standard = standard_masses(z)
    return None if bool((np.abs(m - standard) <= _ROUNDING * standard).all()) else m
