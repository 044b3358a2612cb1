"""Outputs of other programs (Psi4, GAMESS, Q-Chem, NWChem, Molpro, …), read with cclib.

cclib does not tell for which geometry, level or job a number was printed. A quantity is used only where the record
leaves no doubt about it; otherwise it is left out and named.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets.formats.qm_result import CHARGE_NOT_STATED, QMResult, check_not_partial
from hesse.errors import FileFormatError, GeometryError
from hesse.runtime.imports import import_optional
from hesse.structures import own_masses, parse_element

__all__ = ["read_with_cclib"]

_KNOWN_GRADIENT_SIGN: Final = frozenset({"Psi4"})
"""Programs for which cclib's `grads` are dE/dx in the orientation of the coordinates."""
_KNOWN_TOTAL_ENERGY: Final = frozenset({"Psi4"})
"""Programs for which cclib's energies include the dispersion correction, if there is one."""
_MASS_WEIGHTED: Final = frozenset({"NWChem"})
"""Programs that print the Hessian divided by the masses of both atoms, in Hartree/Bohr² per 1000 u."""
_NO_END_KNOWN: Final = frozenset({"Molpro"})
"""Programs of which cclib does not tell whether the job ended."""
_SAME_GEOMETRY: Final = 1e-5
"""Å."""
_SAME_ENERGY: Final = 1e-6
"""Hartree; largest difference of energies that were computed twice for one geometry."""
_SCF_FAILED: Final = re.compile(
    r"SCF failed to converge|could not converge SCF|calculation failed to converge|SCF is unconverged|"
    r"SC[CF] is not converged|SC[CF] not converged|convergence criteria cannot be satisfied|did not converge",
    re.IGNORECASE,
)
"""Messages of Q-Chem, Psi4, NWChem, GAMESS, xTB and others when the equations were not solved."""
_NO_NUCLEUS: Final = re.compile(
    r"^[ \t]*(?:\d+[ \t]+)?(@[a-z]{1,2}\d*|(?:bq|gh|ghost)(?:[-_.(][a-z]{1,2}\d*\)?|[a-z]{0,2}\d*)"
    r"|[a-z]{1,2}\d*(?:[-_(](?:bq|gh|ghost)\)?|@))[ \t]+-?\d+\.\d+[ \t]+-?\d+\.\d+[ \t]+-?\d",
    re.MULTILINE | re.IGNORECASE,
)
"""A row of coordinates whose symbol is that of a ghost atom: @H, Gh(H), bqH, H-Bq, Gh.H."""
_OUTSIDE: Final = (
    (re.compile(r"^[ \t]*\$external_charges", re.MULTILINE | re.IGNORECASE), "point charges ($external_charges)"),
    (re.compile(r"^[ \t]*\$multipole_field", re.MULTILINE | re.IGNORECASE), "electric field ($multipole_field)"),
    (re.compile(r"^ INPUT CARD>[ \t]*\$EFRAG", re.MULTILINE | re.IGNORECASE), "fragment potentials ($EFRAG)"),
    (re.compile(r"^ INPUT CARD>[ \t]*\$EFIELD", re.MULTILINE | re.IGNORECASE), "electric field ($EFIELD)"),
    (re.compile(r"^[^#\n]*\bexternal_potentials?[ \t]*=", re.MULTILINE | re.IGNORECASE), "potential"),
    (re.compile(r"^[^#\n]*\bperturb_h[ \t]+(?:true|1|on|yes)\b", re.MULTILINE | re.IGNORECASE), "field (perturb_h)"),
)
"""Input of Q-Chem, GAMESS and Psi4 that they repeat in their outputs."""
_GAMESS_HESSIAN: Final = "CARTESIAN FORCE CONSTANT MATRIX"
_GAMESS_ROW: Final = re.compile(r"^.{19}([XYZ])((?:.{9}){1,6})[ \t]*$")
_GAMESS_WIDTH: Final = 9
_QCHEM_MOLECULE: Final = re.compile(r"^[ \t]*\$molecule[ \t]*\n[ \t]*(-?\d{1,6})[ \t]+(\d{1,6})[ \t]*$", re.M | re.I)


def read_with_cclib(path: Path, text: str) -> QMResult:
    """Read the last geometry of an output with cclib.

    Args:
        path: the file.
        text: its text.

    Returns:
        The geometry, and the quantities that certainly belong to it.

    Raises:
        FileFormatError: unknown program, a job that did not end, ghost atoms, a partial Hessian, or nothing is left.
        MissingExtraError: cclib is not installed.
    """
    cclib = import_optional("cclib", extra="formats", purpose=f"reading {path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = cclib.io.ccopen(str(path), loglevel=logging.CRITICAL + 1)
            if parser is not None:
                _check_isolated(path, text)
            data = None if parser is None else parser.parse()
    except FileFormatError:
        raise
    except Exception as error:  # parsers raise errors of any type
        raise FileFormatError(
            f"{path}: cclib {cclib.__version__} cannot read it: damaged, incomplete, or of a version it does not know "
            f"({type(error).__name__}: {error})"
        ) from error
    if data is None or not hasattr(data, "atomnos"):
        raise FileFormatError(f"{path}: not an output of a known program (Gaussian, ORCA, and those of cclib)")
    _check_record(path, data)
    result = _to_result(data, text, hartree=float(cclib.parser.utils.convertor(1.0, "hartree", "eV")))
    if result.energy is None and result.gradient is None and result.hessian is None:
        raise FileFormatError(f"{path}: nothing in it can be used; left out: {', '.join(result.unused) or 'nothing'}")
    return result


def _check_isolated(path: Path, text: str) -> None:
    """Refuse ghost atoms, and molecules in external charges or fields."""
    ghost = _NO_NUCLEUS.search(text)
    if ghost is not None:
        raise FileFormatError(
            f'{path}: "{ghost.group(1)}" is a ghost atom: basis functions without a nucleus, so that its labels are '
            "not those of the molecule alone. Compute it without"
        )
    what = next((what for pattern, what in _OUTSIDE if pattern.search(text)), "")
    if what:
        raise FileFormatError(
            f"{path}: a job with an external {what}, which no potential knows: its labels are not those of the "
            "molecule alone. Compute it without"
        )


def _check_record(path: Path, data: Any) -> None:
    """Refuse records without a whole molecule, or of jobs that did not end."""
    program = _program(data) or "this program"
    n = len(data.atomnos)
    if np.shape(getattr(data, "atomcoords", ()))[1:] != (n, 3):
        raise FileFormatError(
            f"{path}: {program} printed {n} atoms but no coordinates that cclib finds. Read the geometry from its own "
            "file (.xyz) and label it again (`hesse label`)."
        )
    for i, number in enumerate(np.asarray(data.atomnos).tolist()):
        try:
            parse_element(number)
        except GeometryError as error:
            raise FileFormatError(f"{path}: atom {i} of {program}: {error}") from error
    if program not in _NO_END_KNOWN and not data.metadata.get("success", False):
        raise FileFormatError(
            f"{path}: the job of {program} did not end normally, so that its last geometry and energy may not belong "
            "together. Run it to its end."
        )


def _program(data: Any) -> str:
    return str(data.metadata.get("package", ""))


def _to_result(data: Any, text: str, *, hartree: float) -> QMResult:
    """Reliable part of a record, for the last geometry of the output."""
    coordinates = np.asarray(data.atomcoords, dtype=float)
    numbers = np.asarray(data.atomnos, dtype=int)
    energy, energy_doubt = _energy(data, coordinates, text, hartree)
    gradient, gradient_doubt = _gradient(data, coordinates)
    charge, multiplicity, charge_doubt = _charge_and_multiplicity(data, text)
    result = QMResult(
        numbers=numbers,
        positions=coordinates[-1],
        charge=charge,
        multiplicity=multiplicity,
        energy=energy,
        gradient=gradient,
        hessian=_hessian(data, text),
        frequencies=getattr(data, "vibfreqs", None),
        level="/".join(str(data.metadata[k]) for k in ("functional", "basis_set") if data.metadata.get(k)),
        masses=_masses(data),
        unused=tuple(doubt for doubt in (energy_doubt, gradient_doubt, charge_doubt) if doubt),
    )
    doubt = ""
    if result.hessian is None:
        doubt = "the Hessian (the program did not print it)" if hasattr(data, "vibfreqs") else ""
    elif conflict := result.frequency_conflict():
        doubt = f"the Hessian (as cclib reads it, it has {conflict})"
    return replace(result, hessian=None, unused=(*result.unused, doubt)) if doubt else result


def _energy(
    data: Any, coordinates: Float[Array, "geometries n 3"], text: str, hartree: float
) -> tuple[float | None, str]:
    """Energy of the last geometry in Hartree, or why it is left out."""
    if hasattr(data, "ccenergies") or hasattr(data, "mpenergies"):
        return None, "the energy (several, of correlated methods; it is not known which one belongs to the Hessian)"
    if hasattr(data, "etenergies"):
        return None, "the energy (of an excited state)"
    if hasattr(data, "dispersionenergies") and _program(data) not in _KNOWN_TOTAL_ENERGY:
        return None, "the energy (it may lack the dispersion correction)"
    if _SCF_FAILED.search(text):
        return None, "the energy (an SCF did not converge)"
    # Divided by cclib's own factor, which restores the printed digits.
    energies = np.ravel(getattr(data, "scfenergies", [])) / hartree
    # Programs print a geometry again when they begin to compute its frequencies.
    moved = np.abs(np.diff(coordinates, axis=0)).max((1, 2), initial=0.0) > _SAME_GEOMETRY
    n_geometries = 1 + int(moved.sum())
    if len(energies) < n_geometries:
        return None, f"the energy ({'not of the last geometry' if len(energies) else 'cclib finds none'})"
    one_each = len(energies) == len(coordinates)
    last = energies[int(np.flatnonzero([True, *moved])[-1]) if one_each else n_geometries - 1 :]
    if np.ptp(last) > _SAME_ENERGY:
        return None, "the energy (several for the last geometry: of other levels, or of displaced geometries)"
    return float(last[-1]), ""


def _gradient(data: Any, coordinates: Float[Array, "geometries n 3"]) -> tuple[Float[Array, "n 3"] | None, str]:
    """Gradient (dE/dx) of the last geometry in Hartree/Bohr, or why it is left out."""
    gradients = getattr(data, "grads", None)
    if gradients is None:
        return None, ""
    if _program(data) in _KNOWN_GRADIENT_SIGN and np.shape(gradients) == coordinates.shape and np.any(gradients[-1]):
        return np.asarray(gradients[-1], dtype=float), ""
    return None, "gradients (not of the last geometry, all zero, or of unknown sign)"


def _hessian(data: Any, text: str) -> Float[Array, "3n 3n"] | None:
    """Hessian in Hartree/Bohr²; None if the record has none."""
    n = len(data.atomnos)
    if _program(data) == "GAMESS":
        return _gamess_hessian(text, n)
    hessian = getattr(data, "hessian", None)
    if hessian is None:
        return None
    size = np.size(hessian)
    rows = math.isqrt(size)
    if rows**2 == size:
        check_not_partial(rows, n)
    if size != 9 * n * n:
        raise FileFormatError(f"a Hessian of {size} elements where {n} atoms need {9 * n * n}: damaged")
    hessian = np.asarray(hessian, dtype=float).reshape(3 * n, 3 * n)
    if _program(data) not in _MASS_WEIGHTED:
        return hessian
    masses = np.asarray(getattr(data, "atommasses", ()), dtype=float)
    if masses.shape != (n,):
        return None
    roots = np.repeat(np.sqrt(masses), 3)
    return np.asarray(1e-3 * hessian * np.outer(roots, roots))


def _gamess_hessian(text: str, n: int) -> Float[Array, "3n 3n"] | None:
    """Last Hessian of a GAMESS output: cclib 1.8 misplaces its columns. Blocks of six columns, from their row on."""
    start = text.rfind(_GAMESS_HESSIAN)
    if start < 0:
        return None
    rows = (match.groups() for line in text[start:].splitlines() if (match := _GAMESS_ROW.match(line)))
    matrix = np.zeros((3 * n, 3 * n))
    try:
        for first in range(0, 3 * n, 6):
            for row in range(first, 3 * n):
                axis, line = next(rows, ("", ""))
                values = [float(line[k : k + _GAMESS_WIDTH]) for k in range(0, len(line), _GAMESS_WIDTH)]
                if axis != "XYZ"[row % 3]:
                    raise ValueError(f"row {row + 1} is missing")
                matrix[row, first : first + 6] = values
    except ValueError as error:
        raise FileFormatError(f"the Hessian of GAMESS is incomplete or damaged ({error})") from error
    lower = np.tril(matrix)
    return np.asarray(lower + np.tril(lower, -1).T)


def _masses(data: Any) -> Float[Array, "n"] | None:
    """Masses (u) that the program used, if they are not the standard ones."""
    try:
        return own_masses(data.atomnos, getattr(data, "atommasses", None))
    except (GeometryError, ValueError, TypeError):
        return None  # not found as a whole


def _charge_and_multiplicity(data: Any, text: str) -> tuple[int, int, str]:
    """Charge and multiplicity, and what was not stated."""
    stated = _QCHEM_MOLECULE.findall(text) if _program(data) == "QChem" else []
    if stated:  # cclib counts electrons, of which effective core potentials lack some
        return int(stated[-1][0]), int(stated[-1][1]), ""
    charge, multiplicity = getattr(data, "charge", None), getattr(data, "mult", None)
    if charge is None or multiplicity is None:
        return int(charge or 0), int(multiplicity or 1), CHARGE_NOT_STATED
    return int(charge), int(multiplicity), ""
