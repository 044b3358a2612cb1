"""Gaussian: the archive block at the end of each job of an output, and formatted checkpoint files.

Both hold geometry, gradient and Hessian in the same orientation with all digits; the tables in the output itself are in
the standard orientation, which differs. Units are atomic, except for the archive's coordinates in Å; "gradient" is
dE/dx in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets.formats.qm_result import QMResult, symmetric_from_lower
from hesse.errors import FileFormatError
from hesse.units import LENGTH_UNITS

__all__ = ["read_archives", "read_fchk"]

_ENERGY_NAMES: Final = ("CCSD(T)", "QCISD(T)", "CCSD", "QCISD", "MP4SDTQ", "MP4SDQ", "MP4DQ", "MP3", "MP2", "HF")
"""Names of energies in an archive, highest method first. A job also lists the lower methods, so that the first name
present is the energy of the job; double hybrids use MP2."""
_EXCITED_STATE: Final = re.compile(r"\b(td|tda|cis|eomccsd)\b", re.IGNORECASE)
_SOLVENT: Final = re.compile(r"^\s*Solvent\s*:\s*([^,]+),", re.MULTILINE)
_FREQUENCIES: Final = re.compile(r"^\s*Frequencies --\s+(.*)$", re.MULTILINE)
_CHARGE_MULTIPLICITY: Final = re.compile(r"-?\d+,\d+$")
_MIN_HEADER_FIELDS: Final = 7
_FCHK_ENTRY = re.compile(r"^(.{40})\s{3}([IRCLH])(?:\s{3}N=)?\s+(\S+)")


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
    results = [_parse_archive(block, before, source) for block, before in _archive_blocks(text)]
    if not results:
        raise FileFormatError(
            f"{source}: a Gaussian output without a complete archive block (1\\1\\…\\@): the job did not end normally. "
            "Run it to its end, or read the formatted checkpoint file (.fchk)."
        )
    return [result for result in results if result.hessian is not None] or results[-1:]


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
    molecule = sections[index].split("\\")
    try:
        charge, multiplicity = (int(x) for x in molecule[0].split(","))
        numbers, positions = _parse_atoms(molecule[1:])
        values = dict(item.split("=", 1) for item in sections[index + 1].split("\\") if "=" in item)
        n = len(numbers)
        hessian = gradient = frequencies = None
        if "NImag" in values:
            hessian = symmetric_from_lower(_parse_floats(sections[index + 2]), n)
            gradient = _parse_floats(sections[index + 3]).reshape(n, 3)
            frequencies = _parse_frequencies(preceding_text, n)
        name = next((e for e in _ENERGY_NAMES if e in values), None)
        excited = bool(_EXCITED_STATE.search(sections[1]))
        return QMResult(
            numbers=numbers,
            positions=positions,
            charge=charge,
            multiplicity=multiplicity,
            energy=float(values[name]) if name and not excited else None,
            gradient=gradient,
            hessian=hessian,
            frequencies=frequencies,
            level=_level(header[4], header[5], preceding_text),
            unused=("the energy of an excited state",) if excited else (),
        )
    except (ValueError, IndexError, KeyError) as error:
        raise FileFormatError(f"{source}: a damaged archive block ({error})") from error


def _parse_atoms(items: list[str]) -> tuple[Array, Array]:
    numbers, positions = [], []
    for item in items:
        symbol, *values = item.split(",")
        symbol = re.sub(r"\(.*\)$", "", symbol).strip()
        if symbol not in atomic_numbers or atomic_numbers[symbol] == 0:
            raise ValueError(f'"{symbol}" is not an element; ghost atoms, dummy atoms and lattice vectors are not read')
        numbers.append(atomic_numbers[symbol])
        positions.append([float(v) for v in values[-3:]])
    return np.array(numbers), np.array(positions)


def _parse_floats(text: str) -> Float[Array, "elements"]:
    return np.array([float(x) for x in text.split(",")])


def _parse_frequencies(text: str, n: int) -> Float[Array, "modes"] | None:
    """Printed frequencies in cm⁻¹; None unless there is exactly one table of all modes."""
    values = [float(x) for line in _FREQUENCIES.findall(text) for x in line.split()]
    return np.array(values) if len(values) in (3 * n - 6, 3 * n - 5) else None


def _level(method: str, basis: str, text: str) -> str:
    if method in ("RO", "R", "U"):
        return ""
    for spin in ("RO", "R", "U"):  # restricted or unrestricted is not part of the level
        if method.startswith(spin) and len(method) > len(spin):
            method = method.removeprefix(spin)
            break
    solvent = _SOLVENT.findall(text)
    return f"{method}/{basis}{f' in {solvent[-1].strip()}' if solvent else ''}"


def read_fchk(path: Path, text: str) -> QMResult:
    """Read a formatted checkpoint file (`.fchk`) of Gaussian or of another program that writes this format.

    Args:
        path: file, named in error messages.
        text: its text.

    Returns:
        Its geometry, and energy, gradient and Hessian if present.

    Raises:
        FileFormatError: damaged, without a geometry, or of a frequency job but without its Hessian.
    """
    lines = text.splitlines()
    header = lines[1].split() if len(lines) > 1 else []
    try:
        values = _parse_fchk(lines)
        numbers = np.array(values["Atomic numbers"], dtype=int)
        n = len(numbers)
        positions = np.array(values["Current cartesian coordinates"]).reshape(n, 3) * LENGTH_UNITS["bohr"]
        gradient = values.get("Cartesian Gradient")
        hessian = _fchk_hessian(values, header)
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
            level=_level(header[1], header[2], "") if len(header) == 3 else "",
        )
    except KeyError as error:
        raise FileFormatError(
            f"{path}: not a formatted checkpoint file, or a damaged one: {error} is missing"
        ) from error
    except (ValueError, IndexError) as error:
        raise FileFormatError(f"{path}: a damaged formatted checkpoint file ({error})") from error


def _fchk_hessian(values: dict[str, list[float]], header: list[str]) -> list[float] | None:
    hessian = values.get("Cartesian Force Constants")
    if hessian is None and header[:1] == ["Freq"]:
        raise ValueError("of a frequency job, but without its Cartesian Force Constants")
    return hessian


def _parse_fchk(lines: list[str]) -> dict[str, list[float]]:
    """Numbers by name. The length of an array is on the line of its name, its values on the lines below."""
    known_names = {
        "Atomic numbers",
        "Current cartesian coordinates",
        "Cartesian Gradient",
        "Cartesian Force Constants",
        "Charge",
        "Multiplicity",
        "Total Energy",
    }
    entries: dict[str, list[float]] = {}
    for i, line in enumerate(lines):
        match = _FCHK_ENTRY.match(line)
        if match is None or (name := match.group(1).strip()) not in known_names:
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
