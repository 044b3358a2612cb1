"""Formatted checkpoint files (`.fchk`) of Gaussian, and of other programs that write this format.

Geometry, gradient and Hessian are in one orientation and in atomic units; "gradient" is dE/dx. Gaussian fills arrays
that it did not compute with zeros, so that an array counts only if the job computed it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from hesse.datasets.formats.gaussian import level_name
from hesse.datasets.formats.gaussian_methods import check_isolated, energy_names_of, uncertain_energy
from hesse.datasets.formats.qm_result import QMResult, symmetric_from_lower
from hesse.errors import FileFormatError, GeometryError
from hesse.structures import own_masses
from hesse.units import LENGTH_UNITS

__all__ = ["read_fchk"]

_ENTRY: Final = re.compile(r"^(.{40})\s{3}([IRCLH])(?:\s{3}N=)?\s+(\S+)")
_ROUTE: Final = re.compile(r"^Route {35}   C   N= *\d+\n((?:(?!.{40}   [IRCLH] ).*\n){1,40})", re.MULTILINE)
_KNOWN_NAMES: Final = frozenset({
    "Atomic numbers", "Nuclear charges", "Current cartesian coordinates", "Cartesian Gradient",
    "Cartesian Force Constants", "Charge", "Multiplicity", "Total Energy", "Nuclear derivative order", "Job Status",
    "Real atomic weights", "Number of translation vectors", "MP2 Energy", "Cluster Energy with triples",
    "Cluster Energy", "MP4 Energy", "MP3 Energy", "ETran scalars", "Number of point charges in /Mol/",
    "External E-field",
})  # fmt: skip
_ENERGIES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "MP2": ("MP2 Energy",), "MP3": ("MP3 Energy",), "MP4SDTQ": ("MP4 Energy",), "CCSD": ("Cluster Energy",),
    "QCISD": ("Cluster Energy",), "CCSD(T)": ("Cluster Energy with triples", "Cluster Energy"),
    "QCISD(T)": ("Cluster Energy with triples", "Cluster Energy"),
}  # fmt: skip
"""Entries that a finished calculation of a correlated method has, by the name of its energy in archives."""
_CORRELATED_ENTRIES: Final = frozenset(entry for entries in _ENERGIES_OF.values() for entry in entries)


def read_fchk(path: Path, text: str) -> QMResult:
    """Read a formatted checkpoint file.

    Args:
        path: file, named in error messages.
        text: its text.

    Returns:
        Its geometry, and energy, gradient and Hessian as far as the job computed them.

    Raises:
        FileFormatError: damaged, without a geometry, with ghost atoms, or of a frequency job but without its Hessian.
    """
    lines = text.splitlines()
    header = lines[1].split() if len(lines) > 1 else []
    try:
        values = _parse(lines)
        numbers = np.array(values["Atomic numbers"], dtype=int)
        n = len(numbers)
        route = _route(text)
        _check_molecule(values, route)
        positions = np.array(values["Current cartesian coordinates"]).reshape(n, 3) * LENGTH_UNITS["bohr"]
        unused = _discard_uncomputed(values, header, route)
        gradient, hessian = values.get("Cartesian Gradient"), values.get("Cartesian Force Constants")
        energy = values.get("Total Energy")
        charge, multiplicity = (int(values[name][0]) for name in ("Charge", "Multiplicity"))
        return QMResult(
            numbers=numbers,
            positions=positions,
            charge=charge,
            multiplicity=multiplicity,
            energy=None if energy is None else energy[0],
            gradient=None if gradient is None else np.array(gradient).reshape(n, 3),
            hessian=None if hessian is None else symmetric_from_lower(np.array(hessian), n),
            level=level_name(header[1], header[2], "") if len(header) == 3 else "",
            masses=own_masses(numbers, values["Real atomic weights"]) if "Real atomic weights" in values else None,
            unused=unused,
        )
    except KeyError as error:
        raise FileFormatError(
            f"{path}: not a formatted checkpoint file, or a damaged one: {error} is missing"
        ) from error
    except GeometryError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except (ValueError, IndexError, OverflowError) as error:
        raise FileFormatError(f"{path}: a damaged formatted checkpoint file ({error})") from error


def _route(text: str) -> str:
    """Keywords of the job; empty if the file does not state them, as before Gaussian 16."""
    match = _ROUTE.search(text)
    return "" if match is None else match.group(1).replace("\n", "")


def _check_molecule(values: dict[str, list[float]], route: str) -> None:
    """Refuse ghost atoms, crystals, and molecules in external charges or fields."""
    check_isolated(route)
    if values.get("Number of point charges in /Mol/", [0.0])[0]:
        check_isolated("charge")
    if any(values.get("External E-field", [])):
        check_isolated("field")
    if 0.0 in values.get("Nuclear charges", []):
        raise GeometryError("an atom of nuclear charge zero is a ghost atom, which no potential knows; remove it")
    if values.get("Number of translation vectors", [0.0])[0]:
        raise GeometryError("a crystal (translation vectors), which is not read from this format")


def _discard_uncomputed(values: dict[str, list[float]], header: list[str], route: str) -> tuple[str, ...]:
    """Remove energy, gradient and Hessian that the job did not compute or finish; returns what was removed."""
    reasons: dict[str, str] = {}
    order = values.get("Nuclear derivative order", [2.0])[0]
    for name, what, needed in (("Cartesian Gradient", "gradient", 1), ("Cartesian Force Constants", "Hessian", 2)):
        if name not in values:
            continue
        if order < needed:
            reasons[name] = f"the {what} of a job of {'no' if order < 1 else 'first'} derivatives"
        elif len(values["Atomic numbers"]) > 1 and not any(values[name]):
            reasons[name] = f"the {what}, all zero: not computed"
    if "Cartesian Force Constants" not in values and header[:1] == ["Freq"]:
        raise ValueError("of a frequency job, but without its Cartesian Force Constants")
    method = header[1] if len(header) > 1 else ""
    uncertain = "the energy of an excited state" if "ETran scalars" in values else uncertain_energy(method, route)
    names = energy_names_of(method)
    stated = _CORRELATED_ENTRIES & values.keys()
    if uncertain:
        reasons["Total Energy"] = uncertain
    elif names and not stated.intersection(entry for name in names for entry in _ENERGIES_OF.get(name, ())):
        reasons["Total Energy"] = f"the energy: the file holds none of {method}"
    elif stated and not names:
        reasons["Total Energy"] = f"the energy: whether it is that of {method} is not known"
    if values.get("Job Status", [1.0])[0] != 1.0:
        reasons |= dict.fromkeys(
            ("Total Energy", "Cartesian Gradient", "Cartesian Force Constants"), "labels of a job that did not end"
        )
    removed = [reason for name, reason in reasons.items() if values.pop(name, None) is not None]
    return tuple(dict.fromkeys(removed))


def _parse(lines: list[str]) -> dict[str, list[float]]:
    """Numbers by name. The length of an array is on the line of its name, its values on the lines below."""
    entries: dict[str, list[float]] = {}
    for i, line in enumerate(lines):
        match = _ENTRY.match(line)
        if match is None or (name := match.group(1).strip()) not in _KNOWN_NAMES:
            continue
        if "N=" not in line[43:50]:
            entries[name] = [float(match.group(3))]
            continue
        count = int(match.group(3))
        numbers: list[float] = []
        for value_line in lines[i + 1 :]:
            if len(numbers) >= count:
                break
            numbers += [float(x) for x in value_line.split()]
        if len(numbers) != count:
            raise ValueError(f"{name}: {len(numbers)} numbers, {count} announced")
        entries[name] = numbers
    return entries
