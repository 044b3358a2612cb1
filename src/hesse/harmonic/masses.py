"""Masses of atoms for vibrations: average, of the most abundant isotopes, or of chosen isotopes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
from ase.data import atomic_masses_common, atomic_numbers
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import RequestError, check_whole_numbers, did_you_mean
from hesse.structures import Structure, own_masses, species_name

__all__ = ["MASS_KINDS", "MassesLike", "atom_masses", "isotope_mass"]

MASS_KINDS: Final = ("average", "principal")
"""Standard atomic weights, and masses of the most abundant isotopes."""

MassesLike: TypeAlias = "str | ArrayLike | None"
"""One of `MASS_KINDS`, or masses in u, `[n]`; None is the same as "average"."""

_ISOTOPES: Final[Mapping[str, float]] = {
    "3He": 3.01602932, "6Li": 6.01512289, "7Li": 7.01600343, "10B": 10.01293686, "11B": 11.00930517, "12C": 12.0,
    "13C": 13.00335484, "14C": 14.00324199, "14N": 14.00307400, "15N": 15.00010890, "16O": 15.99491462,
    "17O": 16.99913176, "18O": 17.99915961, "18F": 18.00093733, "28Si": 27.97692653, "29Si": 28.97649466,
    "30Si": 29.97377014, "32S": 31.97207117, "33S": 32.97145891, "34S": 33.96786701, "35Cl": 34.96885269,
    "37Cl": 36.96590257, "79Br": 78.91833760, "81Br": 80.91628820, "1H": 1.00782503, "2H": 2.01410178,
    "3H": 3.01604928,
}  # fmt: skip
"""u (AME2020); the other isotopes are given by their mass."""
_ISOTOPE: Final = re.compile(r"(\d+)([A-Z][a-z]?)$|([A-Z][a-z]?)-?(\d+)$")
_HEAVIEST: Final = 3.5
"""No isotope is known that is heavier than this times its number of protons, except those of hydrogen."""


def isotope_mass(number: int, isotope: str | float) -> float:
    """Mass of an isotope.

    Args:
        number: atomic number of the atom that it replaces.
        isotope: its mass in u ("2.014"), or its name: "D", "T", "13C", "C13", "37Cl", ...

    Returns:
        The mass, u.

    Raises:
        RequestError: an unknown name, an isotope of another element, or a mass that no isotope of the element has.
    """
    symbol = species_name(number)
    try:
        mass = float(isotope)
    except (TypeError, ValueError):
        return _named_isotope(symbol, str(isotope).strip())
    lightest, heaviest = 0.99 * number, max(_HEAVIEST * number, 7.1)
    if not (np.isfinite(mass) and lightest <= mass <= heaviest):
        raise RequestError(
            f"no isotope of {symbol} has a mass of {mass:g} u; expected one between {lightest:.3g} and {heaviest:.3g}"
        )
    return mass


def _named_isotope(symbol: str, name: str) -> float:
    heavy_hydrogen = {"D": "2H", "T": "3H"}.get(name.upper(), name)
    match = _ISOTOPE.match(heavy_hydrogen)
    known = [key for key in _ISOTOPES if key.lstrip("0123456789") == symbol]
    if match is None:
        hint = f"its mass in u, or one of {', '.join(known)}" if known else "its mass in u"
        raise RequestError(f'"{name}" is no isotope of {symbol}; expected {hint}')
    mass_number, element = (match[1], match[2]) if match[1] else (match[4], match[3])
    if element not in atomic_numbers:
        raise RequestError(f'"{name}": there is no element {element}. {did_you_mean(element, known or [symbol])}')
    if element != symbol:
        raise RequestError(f'"{name}" is an isotope of {element}, but the atom is {symbol}')
    key = f"{int(mass_number)}{element}"
    if key not in _ISOTOPES:
        raise RequestError(f'the mass of {key} is not in the table; give it in u, such as "{float(mass_number):.3f}"')
    return _ISOTOPES[key]


def atom_masses(
    structure: Structure, masses: MassesLike = None, isotopes: Mapping[int, str | float] | None = None
) -> Float[Array, "n"]:
    """Masses of the atoms of a structure.

    Masses of its own that a structure has (deuterium, masses that a program printed) take precedence over tables.

    Args:
        structure: the structure.
        masses: "average" (standard atomic weights, the default), "principal" (the most abundant isotopes, as
            quantum-chemistry programs use them), or masses in u, `[n]`.
        isotopes: for single atoms, by index from 0: the mass in u, or a name such as "D" or "13C".

    Returns:
        u, `[n]`.

    Raises:
        RequestError: an unknown kind of masses, masses of a wrong number or not positive, an atom that does not exist,
            or an unknown isotope.
    """
    n = len(structure)
    if masses is None or isinstance(masses, str):
        result = _tabulated_masses(structure, masses or "average")
    else:
        try:
            result = np.array(masses, dtype=np.float64)
        except (TypeError, ValueError):
            raise RequestError(
                f'structure "{structure.id}": expected {n} positive masses in u, got {masses!r}'
            ) from None
        if result.shape != (n,) or not (np.isfinite(result).all() and (result > 0).all()):
            raise RequestError(f'structure "{structure.id}": expected {n} positive masses in u, got {result}')
    if isotopes is not None and not isinstance(isotopes, Mapping):
        raise RequestError(f'isotopes: expected atoms and their isotopes, such as {{3: "D"}}, got {isotopes!r}')
    for index, isotope in (isotopes or {}).items():
        check_whole_numbers(isotopes=index)
        if not 0 <= index < n:
            raise RequestError(f'structure "{structure.id}": there is no atom {index}; its atoms are 0 to {n - 1}')
        result[index] = isotope_mass(int(structure.numbers[index]), isotope)
    return result


def _tabulated_masses(structure: Structure, kind: str) -> Float[Array, "n"]:
    if kind not in MASS_KINDS:
        raise RequestError(
            f'structure "{structure.id}": expected {len(structure)} positive masses in u, or one of '
            f'{", ".join(MASS_KINDS)}; got "{kind}"'
        )
    result = np.array(structure.atomic_masses, dtype=np.float64)
    if kind == "principal":
        is_standard = [own_masses([z], [m]) is None for z, m in zip(structure.numbers, result, strict=True)]
        result[is_standard] = atomic_masses_common[structure.numbers[is_standard]]
    return result
