"""Gaussian: the archive block at the end of each job of an output.

It holds geometry, gradient and Hessian in the same orientation with all digits; the tables in the output itself are in
the standard orientation, which differs. Units are atomic, except for coordinates in Å; "gradient" is dE/dx. A job that
does not end normally writes no archive block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from ase.data import atomic_masses
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets.formats.gaussian_methods import (
    check_isolated,
    energy_names_of,
    is_correlated_energy,
    uncertain_energy,
)
from hesse.datasets.formats.qm_result import QMResult, symmetric_from_lower
from hesse.errors import FileFormatError, GeometryError
from hesse.structures import own_masses, parse_element

__all__ = ["level_name", "read_archives"]

_SOLVENT: Final = re.compile(r"^\s*Solvent\s*:\s*([^,]+),", re.MULTILINE)
_FREQUENCIES: Final = re.compile(r"^\s*Frequencies --\s+(.*)$", re.MULTILINE)
_SCF_DONE: Final = re.compile(r"^ SCF Done:", re.MULTILINE)
_SELF_ENERGY: Final = "Self energy of the charges"
"""Printed where external point charges are present, even if a route does not repeat the keyword."""
_NOT_CONVERGED: Final = re.compile(r"Convergence criterion not met|Convergence failure", re.IGNORECASE)
_MASS: Final = re.compile(r"^ Atom\s+(\d+) has atomic number\s+(\d+) and mass\s+(\d+\.\d+)", re.MULTILINE)
_ISOTOPE: Final = re.compile(r"\biso=(\d+(?:\.\d+)?)", re.IGNORECASE)
_ROUTE: Final = re.compile(r"^ ?#.*(?:\n(?! ?-{5}| ?Normal termination|[ \t]*$).*){0,20}", re.MULTILINE)
_NO_ARCHIVE: Final = (
    (re.compile(r"\birc(max)?\b", re.IGNORECASE), "an IRC: run frequency jobs at the points of its path"),
    (re.compile(r"(?<![=(,])\btest\b", re.IGNORECASE), "the keyword Test: run it without"),
)
"""Keywords of jobs without archive, and what to do instead."""
_CHARGE_MULTIPLICITY: Final = re.compile(r"-?\d+,\d+$")
_MIN_HEADER_FIELDS: Final = 7


def read_archives(text: str, source: str) -> list[QMResult]:
    """Read the jobs of a Gaussian output from their archive blocks.

    Args:
        text: text of the output.
        source: file, named in error messages.

    Returns:
        All frequency jobs of the output; without one, its last job.

    Raises:
        FileFormatError: no complete archive block (the job did not end normally), or a damaged one.
    """
    results, last_end = [], 0
    for block, before in _archive_blocks(text):
        results.append(_parse_archive(block, before, source))
        last_end += len(before)
    if not results:
        raise FileFormatError(f"{source}: {_why_no_archive(text)}, or read its .fchk file.")
    later = text[last_end:]
    if "Error termination" in text or ("Normal termination" not in later and "Entering Link 1" in later):
        note = "a job of this output did not end normally, and is left out"
        results[-1] = replace(results[-1], unused=(*results[-1].unused, note))
    selected = [result for result in results if result.hessian is not None] or results[-1:]
    # The energies of an optimization are those of its frequency job; others are named.
    states = {(result.level, result.charge, result.multiplicity) for result in selected}
    other = [r for r in results if (r.level, r.charge, r.multiplicity) not in states]
    if other:
        levels = ", ".join(dict.fromkeys(r.level or "a level that is not stated" for r in other))
        note = f"other jobs ({levels}): frequency jobs are read, or else the last job"
        selected[0] = replace(selected[0], unused=(*selected[0].unused, note))
    return selected


def _why_no_archive(text: str) -> str:
    """Reason why an output holds no complete archive block."""
    name = "a Gaussian output without a complete archive block (1\\1\\…\\@)"
    if "Normal termination" not in text:
        return f"{name}: the job did not end normally. Run it to its end"
    # Gaussian cuts long routes anywhere, within words and at blanks.
    route = " ".join(re.sub(r"\n ?", blank, match) for match in _ROUTE.findall(text) for blank in ("", " "))
    kind = next((f", as with {advice}" for word, advice in _NO_ARCHIVE if word.search(route)), "")
    return f"{name}: the job ended normally but wrote none{kind}"


def _archive_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Archive blocks with their lines joined, each with the text between it and the block before."""
    start = 0
    for match in re.finditer(r"^ 1([\\|])1\1", text, re.MULTILINE):
        if match.start() < start:
            continue
        separator = match.group(1)
        lines, end = [], match.start()
        for line in text[match.start() :].splitlines(keepends=True):
            end += len(line)
            if not line.strip():
                break
            # Lines are wrapped at a fixed width and begin with one space; other spaces belong to the text.
            lines.append(line.rstrip("\r\n").removeprefix(" "))
            if "".join(lines[-2:]).endswith(f"{separator}@"):
                yield "".join(lines).replace("|", "\\") if separator == "|" else "".join(lines), text[start:end]
                break
        start = end


def _parse_archive(block: str, preceding_text: str, source: str) -> QMResult:
    sections = block.split("\\\\")
    header = sections[0].split("\\")
    index = next((i for i, s in enumerate(sections) if _CHARGE_MULTIPLICITY.match(s.split("\\")[0])), None)
    if index is None or index + 1 >= len(sections) or len(header) < _MIN_HEADER_FIELDS:
        raise FileFormatError(f"{source}: an archive block without a molecule: damaged, or of an unusual job")
    if header[3].lower() == "scan":
        raise FileFormatError(
            f"{source}: a scan: its archive lists several energies for one geometry. Run single points or frequencies "
            "at the geometries of the scan."
        )
    molecule = sections[index].split("\\")
    try:
        check_isolated(sections[1])
        if _SELF_ENERGY in preceding_text and not uncertain_energy(header[4], sections[1]):
            check_isolated("charge")
        charge, multiplicity = (int(x) for x in molecule[0].split(","))
        numbers, positions, isotopes = _parse_atoms(molecule[1:])
        values = dict(item.split("=", 1) for item in sections[index + 1].split("\\") if "=" in item)
        n = len(numbers)
        hessian = gradient = frequencies = None
        if "NImag" in values:
            hessian = symmetric_from_lower(_parse_floats(sections[index + 2]), n)
            gradient = _parse_floats(sections[index + 3]).reshape(n, 3)
            frequencies = _parse_frequencies(preceding_text, n)
        energy, unused = _energy(values, header[4], sections[1], preceding_text)
        return QMResult(
            numbers=numbers,
            positions=positions,
            charge=charge,
            multiplicity=multiplicity,
            energy=energy,
            gradient=gradient,
            hessian=hessian,
            frequencies=frequencies,
            level=level_name(header[4], header[5], preceding_text),
            title=" ".join("\\\\".join(sections[2:index]).split()),
            masses=_masses(preceding_text, numbers, isotopes),
            unused=unused,
        )
    except GeometryError as error:
        raise FileFormatError(f"{source}: {error}") from error
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise FileFormatError(f"{source}: a damaged archive block ({error})") from error


def _energy(
    values: dict[str, str], method: str, route: str, preceding_text: str
) -> tuple[float | None, tuple[str, ...]]:
    """The energy of the method (Hartree) if it is certain, and what is left out."""
    uncertain = uncertain_energy(method, route)
    if uncertain:
        return None, (uncertain,)
    last_two = [match.end() for match in _SCF_DONE.finditer(preceding_text)][-2:]
    start = last_two[0] if len(last_two) == 2 else 0
    if _NOT_CONVERGED.search(preceding_text, start):
        return None, ("the energy of an SCF that did not converge",)
    names = energy_names_of(method)
    listed = [name for name in values if is_correlated_energy(name)]
    if not names and listed:
        return None, (f"the energy: which of HF, {', '.join(listed)} is that of {method} is not known",)
    name = next((name for name in names or ("HF",) if name in values), None)
    if name is None:
        return None, (f"the energy: the job lists none of {method}",)
    return float(values[name]), ()


def _parse_atoms(items: list[str]) -> tuple[Array, Array, list[float | None]]:
    """Atomic numbers, positions (Å), and the masses (u) that the symbols state."""
    numbers, positions, masses = [], [], []
    for item in items:
        symbol, *values = re.sub(r"\([^)]*\)", "", item).split(",")
        if len(values) < 3:  # as the first atoms of a Z-matrix
            raise GeometryError(
                "its archive states the geometry as a Z-matrix, which is not read. Run the frequency job with "
                "Cartesian coordinates (as with Geom=AllCheck), or read its .fchk file"
            )
        isotope = _ISOTOPE.search(item)
        number, mass = parse_element(symbol)
        if isotope is not None:  # a mass number or a mass
            mass = _isotope_mass(number, float(isotope.group(1)))
        numbers.append(number)
        masses.append(mass)
        positions.append([float(v) for v in values[-3:]])
    return np.array(numbers), np.array(positions), masses


def _isotope_mass(number: int, value: float) -> float:
    heavy = {2.0: "D", 3.0: "T"}.get(value) if number == 1 else None
    return value if heavy is None else float(parse_element(heavy)[1] or value)


def _masses(text: str, numbers: Array, isotopes: list[float | None]) -> Float[Array, "n"] | None:
    """Masses (u) that the job used: the last table of them; without one those that the symbols state."""
    table = _MASS.findall(text)[-len(numbers) :]
    if [(int(i), int(z)) for i, z, _ in table] == list(enumerate(numbers.tolist(), start=1)):
        return own_masses(numbers, [float(m) for _, _, m in table])
    if all(mass is None for mass in isotopes):
        return None
    return own_masses(numbers, [atomic_masses[z] if m is None else m for z, m in zip(numbers, isotopes, strict=True)])


def _parse_floats(text: str) -> Float[Array, "elements"]:
    return np.array([float(x) for x in text.split(",")])


def _parse_frequencies(text: str, n: int) -> Float[Array, "modes"] | None:
    """Printed frequencies in cm⁻¹; None unless there is exactly one table of all modes."""
    values = [float(x) for line in _FREQUENCIES.findall(text) for x in line.split()]
    return np.array(values) if len(values) in (3 * n - 6, 3 * n - 5) else None


def level_name(method: str, basis: str, text: str) -> str:
    """Level of theory in the usual form.

    Args:
        method: method with the kind of reference, such as "RB3LYP".
        basis: basis set.
        text: text that may name a solvent.

    Returns:
        Such as "B3LYP/6-31G(d) in water"; empty if the method is not stated.
    """
    if method in ("RO", "R", "U"):
        return ""
    for spin in ("RO", "R", "U"):  # restricted or unrestricted is not part of the level
        if method.startswith(spin) and len(method) > len(spin):
            method = method.removeprefix(spin)
            break
    solvent = _SOLVENT.findall(text)
    return f"{method}/{basis}{f' in {solvent[-1].strip()}' if solvent else ''}"
