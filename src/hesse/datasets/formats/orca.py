"""ORCA: the Hessian file (`.hess`), and from the same folder the gradient file (`.engrad`) and the output (`.out`).

All are in the same orientation and in atomic units, except for the output's coordinates in Å; gradients are dE/dx. The
Hessian file holds no charge, no multiplicity and often no energy: these are read from the other two files, if they show
the same geometry.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.datasets.formats.qm_result import CHARGE_NOT_STATED, QMResult, check_not_partial
from hesse.errors import FileFormatError, GeometryError
from hesse.structures import own_masses, parse_elements
from hesse.units import LENGTH_UNITS

__all__ = ["is_orca", "read_orca_hess", "read_orca_output"]

_CHARGE: Final = re.compile(r"^\s*Total Charge\s+Charge\s+\.+\s+(-?\d+)", re.MULTILINE)
_MULTIPLICITY: Final = re.compile(r"^\s*Multiplicity\s+Mult\s+\.+\s+(\d+)", re.MULTILINE)
_ENERGY: Final = re.compile(r"^FINAL SINGLE POINT ENERGY[ \t]+(-?\d+\.\d+)(.*)$", re.MULTILINE)
_NOT_CONVERGED: Final = re.compile(r"not (fully )?converged", re.IGNORECASE)
_SCF_FAILED: Final = re.compile(r"SCF NOT CONVERGED AFTER|wavefunction IS NOT CONVERGED", re.IGNORECASE)
_ENDED: Final = "ORCA TERMINATED NORMALLY"
# Blanks within a line only: otherwise some texts match in very many ways, which takes long.
_COORDINATES: Final = re.compile(
    r"^CARTESIAN COORDINATES \(ANGSTROEM\)[ \t]*\n-+[ \t]*\n((?:[ \t]*[^\s][^\n]*\n)+)",
    re.MULTILINE,
)
_GRADIENT: Final = re.compile(
    r"^CARTESIAN GRADIENT[^\n]*\n-+[ \t]*\n(?:[ \t]*\n)?"
    r"((?:[ \t]*\d+[ \t]+\S+[ \t]+:(?:[ \t]+-?\d+\.\d+(?:[eE][-+]?\d+)?){3}[ \t]*\n)+)",
    re.MULTILINE,
)
_KEYWORDS: Final = re.compile(r"^\|\s*\d+>\s*!\s*(.+?)\s*$", re.MULTILINE)
_POINT_CHARGES: Final = re.compile(r"^\|\s*\d+>[^#\n]*%\s*pointcharges", re.MULTILINE | re.IGNORECASE)
_FIELD: Final = re.compile(r"^\|\s*\d+>[^#\n]*\bEField\b", re.MULTILINE | re.IGNORECASE)
_EXCITED: Final = re.compile(r"^[^|\n]*(?:EXCITED STATES|EOM-CC\w* RESULTS)", re.MULTILINE)
_OF_EXCITED_STATES: Final = "energy and gradient of a job with excited states: of which state they are is not known"
_GEOMETRY_TOLERANCE: Final = 2e-4
"""Largest difference in Å between coordinates of the same geometry in two files (ORCA prints 6 digits)."""


def is_orca(text: str) -> bool:
    """Recognize an output of ORCA.

    Args:
        text: text of the file.

    Returns:
        True if ORCA's title is near the beginning.
    """
    return "O   R   C   A" in text[:20000]


def read_orca_output(text: str, source: str) -> QMResult:
    """Read the last geometry of an ORCA output. Outputs hold no Hessian.

    Args:
        text: text of the output.
        source: file, named in error messages.

    Returns:
        The geometry, and the energy and gradient printed after it, if any.

    Raises:
        FileFormatError: the job did not end normally, no geometry, ghost atoms, point charges, a field, or damaged.
    """
    if _ENDED not in text:
        raise FileFormatError(
            f"{source}: the job did not end normally ({_ENDED} is missing), so that its last geometry and energy may "
            "not belong together. Run it to its end."
        )
    geometries = list(_COORDINATES.finditer(text))
    if not geometries:
        raise FileFormatError(
            f"{source}: an ORCA output without a geometry: it is truncated, or the job failed at the start"
        )
    after = geometries[-1].end()
    energy, gradient = _ENERGY.search(text, after), _GRADIENT.search(text, after)
    unused: tuple[str, ...] = ()
    if _SCF_FAILED.search(text, after) or (energy is not None and _NOT_CONVERGED.search(energy.group(2))):
        energy = gradient = None
        unused = ("energy and gradient of an SCF that did not converge",)
    elif _EXCITED.search(text, after):
        energy = gradient = None
        unused = (_OF_EXCITED_STATES,)
    try:
        charge, multiplicity, level, not_stated = _read_job(text)
        numbers, positions = _parse_coordinates(geometries[-1].group(1))
        rows = [] if gradient is None else [r.split() for r in gradient.group(1).splitlines() if r.strip()]
        return QMResult(
            numbers=numbers,
            positions=positions,
            charge=charge,
            multiplicity=multiplicity,
            energy=float(energy.group(1)) if energy else None,
            gradient=np.array([[float(x) for x in r[3:]] for r in rows]) if rows else None,
            level=level,
            unused=(*unused, *not_stated),
        )
    except GeometryError as error:
        raise FileFormatError(f"{source}: {error}") from error
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise FileFormatError(f"{source}: a damaged ORCA output ({error})") from error


def _read_job(text: str) -> tuple[int, int, str, tuple[str, ...]]:
    """Charge, multiplicity and level of the last job of an output, and what was not stated."""
    if _POINT_CHARGES.search(text):
        raise GeometryError(
            "a job with external point charges (%pointcharges), which no potential knows: its labels are not those of "
            "the molecule alone. Compute it without them"
        )
    if _FIELD.search(text):
        raise GeometryError(
            "a job with an external electric field (EField), which no potential knows: its labels are not those of the "
            "molecule alone. Compute it without"
        )
    charges, multiplicities = _CHARGE.findall(text), _MULTIPLICITY.findall(text)
    return (
        int(charges[-1]) if charges else 0,
        int(multiplicities[-1]) if multiplicities else 1,
        " ".join(" ".join(_KEYWORDS.findall(text)).split()),
        () if charges and multiplicities else (CHARGE_NOT_STATED,),
    )


def _parse_coordinates(table: str) -> tuple[Int[Array, "n"], Float[Array, "n 3"]]:
    """Atomic numbers and positions (Å). Every row must be an atom: none may be lost."""
    rows = [line.split() for line in table.splitlines()]
    # A ghost atom is a symbol followed by a colon.
    numbers, _ = parse_elements([row[0] + (":" if row[1:2] == [":"] else "") for row in rows])
    odd = next((row for row in rows if len(row) != 4), None)
    if odd is not None:
        raise ValueError(f'expected a symbol and three coordinates, got "{" ".join(odd)}"')
    return numbers, np.array([[float(x) for x in row[1:]] for row in rows])


def read_orca_hess(path: Path, text: str, sibling_text: Callable[[str], str | None]) -> QMResult:
    """Read a Hessian file, completed by the gradient file and the output of the same job.

    Args:
        path: file, named in error messages.
        text: its text.
        sibling_text: function from a suffix to the text of the file of the same name with that suffix, or None if
            there is no such file.

    Returns:
        Geometry and Hessian, and energy, gradient, charge and multiplicity as far as the files hold them.

    Raises:
        FileFormatError: damaged, or a partial Hessian.
    """
    try:
        sections = _split_sections(text)
        atoms = _atom_lines(sections["$atoms"])
        numbers, _ = parse_elements([a[0] for a in atoms])
        masses = own_masses(numbers, [float(a[1]) for a in atoms])
        positions = np.array([[float(x) for x in a[2:5]] for a in atoms]) * LENGTH_UNITS["bohr"]
        hessian = _parse_matrix(sections["$hessian"], 3 * len(atoms))
        energy = _float_or_none(sections.get("$act_energy"))
        frequencies = _parse_frequencies(sections.get("$vibrational_frequencies"))
        gradient = None
        engrad = sibling_text(".engrad")
        if engrad is not None:
            same_geometry, engrad_gradient, engrad_energy = _parse_engrad(engrad, positions)
            if same_geometry:
                gradient, energy = engrad_gradient, engrad_energy
    except GeometryError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise FileFormatError(f"{path}: not an ORCA Hessian file, or a damaged one ({error})") from error
    charge, multiplicity, level = 0, 1, ""
    unused: tuple[str, ...] = (CHARGE_NOT_STATED,)
    output = next((t for s in (".out", ".log") if (t := sibling_text(s)) is not None), None)
    if output is not None and is_orca(output) and _ENDED in output:
        job = read_orca_output(output, str(path))
        charge, multiplicity, level, unused = job.charge, job.multiplicity, job.level, job.unused
        if _OF_EXCITED_STATES in job.unused:  # also those of the other files
            energy = gradient = None
        elif _is_same_geometry(job.positions, positions):
            energy = energy if job.energy is None else job.energy  # the Hessian file rounds it to few digits
            gradient = job.gradient if gradient is None else gradient
    elif output is not None and is_orca(output):
        try:
            charge, multiplicity, level, unused = _read_job(output)
        except (GeometryError, ValueError) as error:
            raise FileFormatError(f"{path}: {error}") from error
        unused = (*unused, "energy and gradient of an output whose job did not end")
    return QMResult(
        numbers=numbers,
        positions=positions,
        charge=charge,
        multiplicity=multiplicity,
        energy=energy,
        gradient=gradient,
        hessian=hessian,
        frequencies=frequencies,
        level=level,
        masses=masses,
        unused=unused,
    )


def _is_same_geometry(other: Float[Array, "m 3"], positions: Float[Array, "n 3"]) -> bool:
    return other.shape == positions.shape and bool(np.abs(other - positions).max() < _GEOMETRY_TOLERANCE)


def _split_sections(text: str) -> dict[str, list[str]]:
    """Lines of each section by its name (`$hessian`), without comments and leading blank lines."""
    sections: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("$"):
            name = line.split()[0]
            sections[name] = []
        elif name and not line.startswith("#") and (line.strip() or sections[name]):
            sections[name].append(line)
    return sections


def _atom_lines(lines: list[str]) -> list[list[str]]:
    """Words of each line of an atom; the first line of the section is their number."""
    atoms = [line.split() for line in lines[1:] if line.strip()]
    if len(atoms) != int(lines[0]):
        raise ValueError(f"{len(atoms)} atoms, {lines[0].strip()} announced")
    return atoms


def _parse_matrix(lines: list[str], size: int) -> Float[Array, "size size"]:
    """Symmetric matrix printed in blocks of columns: a line of column numbers, then a line for each row."""
    rows = int(lines[0].split()[0])
    check_not_partial(rows, size // 3)
    if rows != size:
        raise ValueError(f"{rows} rows of the Hessian for {size} coordinates")
    matrix = np.full((size, size), np.nan)
    columns: list[int] = []
    for line in lines[1:]:
        words = line.split()
        if not words:
            continue
        if all(w.isdigit() for w in words):
            columns = [int(w) for w in words]
        else:
            matrix[int(words[0]), columns] = [float(w) for w in words[1:]]
    if np.isnan(matrix).any():
        raise ValueError("some elements of the Hessian are missing")
    return 0.5 * (matrix + matrix.T)


def _float_or_none(lines: list[str] | None) -> float | None:
    value = float(lines[0]) if lines and lines[0].strip() else 0.0
    return value or None  # zero means unknown


def _parse_frequencies(lines: list[str] | None) -> Float[Array, "modes"] | None:
    if not lines:
        return None
    values = [float(line.split()[1]) for line in lines[1:] if line.strip()]
    return np.array([v for v in values if v != 0.0])


def _parse_engrad(text: str, positions: Float[Array, "n 3"]) -> tuple[bool, Float[Array, "n 3"], float]:
    """Parse a gradient file: whether it has this geometry, its gradient (Hartree/Bohr), and its energy (Hartree)."""
    words = [w for line in text.splitlines() if not line.lstrip().startswith("#") for w in line.split()]
    n = int(words[0])
    gradient = np.array([float(w) for w in words[2 : 2 + 3 * n]]).reshape(n, 3)
    atoms = np.array([float(w) for w in words[2 + 3 * n : 2 + 7 * n]]).reshape(n, 4)
    engrad_positions = atoms[:, 1:] * LENGTH_UNITS["bohr"]
    return _is_same_geometry(engrad_positions, positions), gradient, float(words[1])
