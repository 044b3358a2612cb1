"""Units that a file states beside its data: they are believed, and must agree with what the user states."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from hesse.datasets.formats.file_units import FileUnits
from hesse.errors import UnitError
from hesse.structures import Properties

__all__ = ["check_derived_units", "merge_units", "pop_stated_units"]

_QUANTITIES: Final = {
    "energy": ("energy", "energies"),
    "length": (
        "length",
        "lengths",
        "position",
        "positions",
        "pos",
        "coord",
        "coords",
        "coordinates",
        "cell",
        "lattice",
    ),
    "forces": ("force", "forces"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
    "curvature": ("hessian", "hessians", "curvature", "hvp"),
}
_NAMES: Final = {name: quantity for quantity, names in _QUANTITIES.items() for name in names}
_KEY: Final = re.compile(
    rf"(?:({'|'.join(_NAMES)})[-_]?units?|units?[-_]({'|'.join(_NAMES)}))$",
    re.IGNORECASE,
)


def pop_stated_units(info: MutableMapping[str, Any]) -> dict[str, str]:
    """Take the keys that state units, such as `energy-unit` or `force_unit`, out of the keys of a structure.

    Args:
        info: keys and values; those that state units are removed.

    Returns:
        Names of units by quantity: energy, length, forces, stress, virial, curvature.

    Raises:
        UnitError: two keys that contradict each other, or a value that is not a text.
    """
    stated: dict[str, str] = {}
    for key in [k for k in info if _KEY.match(k)]:
        match = _KEY.match(key)
        assert match is not None
        quantity = _NAMES[(match.group(1) or match.group(2)).lower()]
        value = info.pop(key)
        if not isinstance(value, str):
            raise UnitError(f"{key}: expected the name of a unit, got {value!r}")
        if quantity in stated and not _same(quantity, stated[quantity], value):
            raise UnitError(f"two units are stated for {quantity}: {stated[quantity]} and {value}")
        stated[quantity] = value
    return stated


def merge_units(stated: Mapping[str, str], options: Mapping[str, str | None]) -> FileUnits:
    """Units of a file from what it states and what the user states.

    Args:
        stated: names of units by quantity, as the file states them.
        options: names of units by quantity, as the user states them; None if not stated.

    Returns:
        Complete units; eV and Å where nothing is stated.

    Raises:
        UnitError: an unknown unit, or file and user contradict each other.
    """
    names: dict[str, str] = {}
    for quantity in ("energy", "length", "forces", "stress", "curvature"):
        in_file, given = stated.get(quantity), options.get(quantity)
        if in_file and given and not _same(quantity, in_file, given):
            raise UnitError(
                f"--{quantity}-unit {given} was given, but the file states {in_file}. Leave the option out, or correct "
                "the file."
            )
        if value := in_file or given:
            names[quantity] = value
    return FileUnits(**names)


def check_derived_units(stated: Mapping[str, str], units: FileUnits, labels: Properties) -> None:
    """Refuse derivatives whose unit is uncertain: a file that states one unit and leaves others open.

    Args:
        stated: names of units by quantity, as the file states them.
        units: the merged units.
        labels: the labels of the structure.

    Raises:
        UnitError: for example forces, where the file states `energy-unit=hartree` alone.
    """
    if ("energy" in stated) == ("length" in stated):
        return
    name = "energy" if "energy" in stated else "length"
    if _same(name, stated[name], {"energy": "eV", "length": "angstrom"}[name]):
        return
    present = {"forces": labels.forces, "stress": labels.stress, "curvature": (labels.hessian, labels.hvp)}
    for quantity, value in present.items():
        is_there = any(v is not None for v in value) if isinstance(value, tuple) else value is not None
        if is_there and getattr(units, quantity) is None:
            raise UnitError(
                f"the file states {name} in {stated[name]}, but not the unit of {quantity}. State it: "
                f"`--{quantity}-unit`."
            )


def _same(quantity: str, one: str, other: str) -> bool:
    field = "energy" if quantity == "virial" else quantity
    a, b = FileUnits(**{field: one}), FileUnits(**{field: other})
    return math.isclose(a.value(field), b.value(field), rel_tol=1e-6)
