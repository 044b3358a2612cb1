"""Units and physical constants.

Internally all quantities are in eV, Å and u (ASE's system). Other units occur only in readers, writers and reports. The
values are those of ASE (CODATA 2014), so that energies agree with ASE-based tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ase import units as _ase

from hesse.errors import UnitError, did_you_mean

__all__ = [
    "BOLTZMANN",
    "ENERGY_UNITS",
    "FEMTOSECOND",
    "HBAR",
    "INVERSE_CM",
    "KCAL_PER_MOL",
    "LENGTH_UNITS",
    "energy_unit",
    "length_unit",
]

BOLTZMANN: Final[float] = float(_ase.kB)
"""eV/K."""

KCAL_PER_MOL: Final[float] = float(_ase.kcal / _ase.mol)
"""One kcal/mol in eV."""

HBAR: Final[float] = float(_ase._hbar * _ase.J * _ase.s)
"""eV times the internal unit of time, Å √(u/eV) = 10.18 fs: ħ√(eigenvalue of a mass-weighted Hessian) is in eV."""

FEMTOSECOND: Final[float] = float(_ase.fs)
"""One fs in the internal unit of time, Å √(u/eV)."""

INVERSE_CM: Final[float] = float(_ase.invcm)
"""The energy of one cm⁻¹ in eV; ħω in eV divided by it is a wavenumber."""

ENERGY_UNITS: Final[Mapping[str, float]] = {
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": float(_ase.Hartree),
    "rydberg": float(_ase.Rydberg),
    "kcal/mol": KCAL_PER_MOL,
    "kj/mol": float(_ase.kJ / _ase.mol),
}
"""Energy units by lower-case name, in eV."""

LENGTH_UNITS: Final[Mapping[str, float]] = {"angstrom": 1.0, "å": 1.0, "bohr": float(_ase.Bohr), "nm": 10.0}
"""Length units by lower-case name, in Å."""


def _look_up(name: str, table: Mapping[str, float], what: str) -> float:
    if not isinstance(name, str):
        raise UnitError(f"expected the name of a unit of {what}, got {name!r}. {did_you_mean('', table)}")
    try:
        return table[name.strip().lower()]
    except KeyError:
        raise UnitError(f'unknown {what} unit "{name}". {did_you_mean(name.lower(), table)}') from None


def energy_unit(name: str) -> float:
    """Conversion factor of an energy unit.

    Args:
        name: name of the unit, in upper or lower case ("Hartree", "kcal/mol").

    Returns:
        The unit in eV.

    Raises:
        UnitError: unknown unit.
    """
    return _look_up(name, ENERGY_UNITS, "energy")


def length_unit(name: str) -> float:
    """Conversion factor of a length unit.

    Args:
        name: name of the unit, in upper or lower case ("bohr", "nm").

    Returns:
        The unit in Å.

    Raises:
        UnitError: unknown unit.
    """
    return _look_up(name, LENGTH_UNITS, "length")
