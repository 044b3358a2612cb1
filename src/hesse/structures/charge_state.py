"""Charge and spin as ASE's users and machine-learning packages name them."""

from __future__ import annotations

import numbers as numeric
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hesse.errors import LabelValueError, RequestError

__all__ = ["ChargeState", "check_electron_count", "electronic_state", "is_charge_key", "read_charge_state"]

_CHARGE_KEYS: Final = ("charge", "total_charge", "net_charge", "molecular_charge", "pubchem_total_charge")
_MULTIPLICITY_KEYS: Final = ("multiplicity", "spin_multiplicity", "mult")
_SPIN_KEYS: Final = ("spin", "total_spin")
"""A multiplicity in fairchem and MACE; elsewhere S, or the number of unpaired electrons."""
_WHOLE: Final = 0.01
"""e; partial charges with this error or less add up to a whole charge."""


@dataclass(frozen=True)
class ChargeState:
    """Charge and multiplicity of a structure, and what was said about them.

    Attributes:
        charge: e; 0 if nothing is said.
        multiplicity: 2S+1; 1 if nothing is said.
        read: keys that were understood.
        not_read: keys that can mean several things, with the reason.
    """

    charge: int
    multiplicity: int
    read: tuple[str, ...]
    not_read: Mapping[str, str]


def electronic_state(n_protons: int, charge: int, multiplicity: int) -> tuple[int, int]:
    """Charge and multiplicity, the latter as it must be if nothing or something impossible was said.

    Args:
        n_protons: sum of the atomic numbers.
        charge: e.
        multiplicity: 2S+1; below 1 if nothing is said.

    Returns:
        The charge, and the multiplicity; the lowest one of that number of electrons if the given one does not fit it.
    """
    is_odd = (n_protons - charge) % 2
    fits = multiplicity >= 1 and multiplicity % 2 != is_odd
    return charge, multiplicity if fits else 1 + is_odd


def check_electron_count(structure_id: str, n_protons: int, charge: int, multiplicity: int) -> None:
    """Check that a molecule can have a charge and a multiplicity.

    Args:
        structure_id: named in the error.
        n_protons: sum of the atomic numbers.
        charge: e.
        multiplicity: 2S+1.

    Raises:
        RequestError: too few electrons, or an odd number of electrons with an even number of unpaired ones or the
            other way round.
    """
    electrons, unpaired = n_protons - charge, multiplicity - 1
    if electrons < max(unpaired, 1) or (electrons - unpaired) % 2:
        raise RequestError(
            f'structure "{structure_id}": {electrons} electrons (charge {charge}) cannot have multiplicity '
            f'{multiplicity}. Set them: atoms.info["charge"] and atoms.info["multiplicity"], charge=0 multiplicity=2 '
            "in the comment line of extended XYZ, or `hesse convert IN OUT --charge 0 --multiplicity 2` for all "
            "structures of a file"
        )


def is_charge_key(key: str) -> bool:
    """Whether a key is one of the names of charge or spin that are understood.

    Args:
        key: key of a file, or of `atoms.info`.

    Returns:
        True for `charge`, `total_charge`, `spin`, `mult` and their relatives.
    """
    return _plain(key) in (*_CHARGE_KEYS, *_MULTIPLICITY_KEYS, *_SPIN_KEYS)


def read_charge_state(
    info: Mapping[str, Any],
    numbers: NDArray[np.int64],
    initial_charges: NDArray[np.float64] | None = None,
    initial_magmoms: NDArray[np.float64] | None = None,
) -> ChargeState:
    """Find charge and multiplicity under their usual names.

    `charge` and `total_charge` are charges; `multiplicity`, `spin_multiplicity` and `mult` are multiplicities. `spin`
    and `total_spin` are multiplicities beside a charge (fairchem, MACE), or if nothing else fits the number of
    electrons. Charges of atoms count if they add up to a whole number and nothing else is said; magnetic moments of
    atoms likewise, as the number of unpaired electrons.

    Args:
        info: keys and values; those of other meaning are ignored.
        numbers: atomic numbers, `[atoms]`.
        initial_charges: charges of atoms in e, `[atoms]`; None if not given.
        initial_magmoms: magnetic moments of atoms in Bohr magnetons, `[atoms]`; None if not given.

    Returns:
        Charge, multiplicity, and which keys say so.

    Raises:
        LabelValueError: a value that is not a whole number, or keys that contradict each other.
    """
    charges = {k: _whole(k, v) for k, v in info.items() if v is not None and _plain(k) in _CHARGE_KEYS}
    spins = {k: _whole(k, v) for k, v in info.items() if v is not None and _plain(k) in _MULTIPLICITY_KEYS}
    not_read: dict[str, str] = {}
    charge = _agreed(charges, "charge")
    if initial_charges is not None and np.any(initial_charges):
        total = float(np.sum(initial_charges))
        is_whole = abs(total - round(total)) <= _WHOLE
        if charge is None and is_whole:
            charge = round(total)
        elif charge is None:
            not_read["initial_charges"] = f"they add up to {total:.3f}, no whole charge"
        elif is_whole and round(total) not in (charge, 0):
            raise LabelValueError(f"{_listed(charges)}, but the charges of the atoms add up to {total:.3f}")
    n_electrons = int(np.sum(numbers)) - (charge or 0)
    for key, value in info.items():
        if value is None or _plain(key) not in _SPIN_KEYS:
            continue
        is_number = isinstance(value, numeric.Real) and float(value).is_integer() and not isinstance(value, bool)
        fits = is_number and value >= 1 and (n_electrons + int(value)) % 2 == 1
        # S = 1 of an even number of electrons has the same parity as a singlet.
        if fits and (charges or int(value) > 1):
            spins[key] = int(value)
        else:
            not_read[key] = "not a multiplicity that fits the number of electrons, or perhaps S"
    multiplicity = _agreed(spins, "multiplicity")
    if initial_magmoms is not None and np.any(initial_magmoms) and multiplicity is None:
        unpaired = abs(float(np.sum(initial_magmoms)))
        if np.ndim(initial_magmoms) != 1 or abs(unpaired - round(unpaired)) > _WHOLE:
            not_read["initial_magmoms"] = "they do not add up to a whole number of unpaired electrons"
        elif (n_electrons - round(unpaired)) % 2:
            not_read["initial_magmoms"] = f"{n_electrons} electrons cannot have {round(unpaired)} unpaired ones"
        else:
            multiplicity = round(unpaired) + 1
    if multiplicity is not None and multiplicity < 1:
        raise LabelValueError(f"a multiplicity is 1 or more, got {_listed(spins)}")
    return ChargeState(charge or 0, multiplicity or 1, (*charges, *spins), not_read)


def _plain(key: str) -> str:
    return key.lower().replace("-", "_")


def _agreed(values: Mapping[str, int], what: str) -> int | None:
    if len(set(values.values())) > 1:
        raise LabelValueError(f"{what} is stated twice, with different values: {_listed(values)}; remove the wrong one")
    return next(iter(values.values()), None)


def _listed(values: Mapping[str, int]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _whole(key: str, value: object) -> int:
    number = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(number, bool) or not isinstance(number, numeric.Real) or not float(number).is_integer():
        raise LabelValueError(f"{key} must be a whole number, got {value!r}")
    return int(float(number))
