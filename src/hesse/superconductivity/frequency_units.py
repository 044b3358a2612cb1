"""Units of phonon frequencies, as energies of a quantum."""

from __future__ import annotations

from typing import Final

import numpy as np
from ase import units as ase_units

from hesse.errors import RequestError, UnitError, did_you_mean
from hesse.units import INVERSE_CM

__all__ = ["FREQUENCY_UNITS", "check_same_scale", "frequency_unit"]

FREQUENCY_UNITS: Final = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ry": float(ase_units.Rydberg),
    "Ha": float(ase_units.Hartree),
    "THz": float(2 * np.pi * ase_units._hbar * 1e12 * ase_units.J),
    "cm-1": INVERSE_CM,
    "K": float(ase_units.kB),
}
"""Units of frequencies, in eV."""
_OTHER_NAMES: Final = {"rydberg": "Ry", "hartree": "Ha", "cm^-1": "cm-1"}
_SAME_SCALE: Final = 2.0
"""Largest ratio of the highest frequencies of two descriptions of the same phonons."""


def frequency_unit(name: str) -> float:
    """The size of a unit of frequencies.

    Args:
        name: eV, meV, Ry, Ha, THz, cm-1 or K, in upper or lower case.

    Returns:
        eV.

    Raises:
        UnitError: an unknown unit.
    """
    names = {known.lower(): known for known in FREQUENCY_UNITS} | _OTHER_NAMES
    if not isinstance(name, str) or name.lower() not in names:
        raise UnitError(f'unknown unit of frequencies "{name}". {did_you_mean(name, FREQUENCY_UNITS)}')
    return FREQUENCY_UNITS[names[name.lower()]]


def check_same_scale(frequency: float, unit: str, expected: float, what: str, *, upper: float | None = None) -> None:
    """Check that two highest frequencies are of the same phonons: a wrong unit makes them differ by large factors.

    Args:
        frequency: the highest frequency that was given, in `unit`.
        unit: its unit.
        expected: the highest frequency that it should be near to, eV.
        what: what was given, for the message.
        upper: a higher frequency that it may also be near to, eV.

    Raises:
        RequestError: they differ by more than a factor of two.
        UnitError: an unknown unit.
    """
    found = frequency * frequency_unit(unit)
    if expected / _SAME_SCALE <= found <= max(expected, upper or 0.0) * _SAME_SCALE:
        return
    fitting = [name for name, size in FREQUENCY_UNITS.items() if 0.8 < frequency * size / expected < 1.25]
    hint = f'unit="{fitting[0]}" fits' if fitting else 'give their unit, such as unit="THz" for Phonons.frequencies'
    in_ev = "" if frequency_unit(unit) == 1.0 else f" ({found:.4g} eV)"
    raise RequestError(
        f"{what}: expected the same phonons, whose highest frequency is {expected:.4g} eV; the highest given is "
        f"{frequency:.4g} {unit}{in_ev}. If they are in another unit: {hint}"
    )
