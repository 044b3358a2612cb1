"""Outputs of quantum-chemistry programs: energy, forces and Hessian of frequency calculations.

Gaussian outputs, formatted checkpoint files and ORCA's Hessian files have their own readers, because they hold
geometry, gradient and Hessian in one orientation with all digits. Other outputs (Psi4, GAMESS, Q-Chem, NWChem, …) are
read with cclib, and quantities whose orientation or sign is uncertain are left out. Every Hessian must reproduce the
frequencies that its program printed.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.gaussian import read_archives
from hesse.datasets.formats.gaussian_checkpoint import read_fchk
from hesse.datasets.formats.orca import is_orca, read_orca_hess, read_orca_output
from hesse.datasets.formats.qm_result import QMResult
from hesse.datasets.formats.subset import ALL, SubsetLike, as_subset
from hesse.errors import FileFormatError, HesseError, MissingExtraError
from hesse.runtime.filesystem import check_input_file
from hesse.runtime.imports import import_optional
from hesse.structures import Properties, Structure

__all__ = ["QM_SUFFIXES", "is_qm_output", "read_qm_folder", "read_qm_output"]

QM_SUFFIXES: Final = frozenset({".log", ".out", ".fchk", ".fch", ".hess"})
"""Suffixes of files that are read as outputs."""
_MAX_BYTES: Final = 1 << 30
"""Largest size of an output; the text is held in memory several times."""
_KNOWN_GRADIENT_SIGN: Final = frozenset({"Psi4"})
"""Programs for which cclib's `grads` are dE/dx in the orientation of the coordinates."""
_KNOWN_TOTAL_ENERGY: Final = frozenset({"Psi4"})
"""Programs for which cclib's energies include the dispersion correction, if there is one."""


def is_qm_output(path: Path) -> bool:
    """Recognize outputs by their suffixes.

    Args:
        path: file or folder.

    Returns:
        True for a file with such a suffix, or a folder with such files at or below it.
    """
    files = path.rglob("*") if path.is_dir() else (path,)
    return any(p.suffix.lower() in QM_SUFFIXES for p in files)


def read_qm_output(path: str | Path) -> Dataset:
    """Read one output: Gaussian `.log`, `.out` and `.fchk`, ORCA `.hess` (with `.engrad` and `.out` in its folder), and
    other programs through cclib.

    Args:
        path: the file.

    Returns:
        A structure for every frequency job (without one, for the last job), with labels in eV, eV/Å and eV/Å². Its id
        is the name of the file, with `-0`, `-1`, … appended if there are several.

    Raises:
        FileFormatError: unknown program, incomplete output, or a damaged file.
        MissingExtraError: cclib is needed and not installed.
        InconsistentLabelsError: the Hessian gives other frequencies than those printed.
    """
    path = Path(path)
    results = _read_results(path)
    try:
        pairs = _to_structures(path.stem, results)
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None
    return _dataset(path, [(path, results)], pairs, [])


def read_qm_folder(folder: str | Path, *, subset: SubsetLike = ALL) -> Dataset:
    """Read all outputs at or below a folder. Files that cannot be read are listed with the reason in `not_read`.

    An ORCA output is skipped if its Hessian file is in the same folder, since that reads both.

    Args:
        folder: where the search begins.
        subset: the part of the files to read; ids are paths below `folder` without suffix.

    Returns:
        A structure for every frequency job, as for `read_qm_output`.

    Raises:
        FileFormatError: the folder holds no output, or none that can be read.
        MissingExtraError: cclib is needed and not installed.
        RequestError: no file matches the subset.
    """
    folder, subset = Path(folder), as_subset(subset)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in QM_SUFFIXES and p.is_file())
    files = [p for p in files if p.suffix == ".hess" or not p.with_suffix(".hess").is_file()]
    candidates = [p for p in files if subset.matches(_id_of_file(folder, p))]
    if files and not candidates:
        raise subset.no_match_error(folder, [_id_of_file(folder, p) for p in files[:3]])
    parsed: list[tuple[Path, list[QMResult]]] = []
    failed: list[str] = []
    pairs: list[tuple[Structure, Properties]] = []
    for k in subset.indices(len(candidates)):
        file = candidates[k]
        try:
            results = _read_results(file)
            pairs += _to_structures(_id_of_file(folder, file), results)
            parsed.append((file, results))
        except MissingExtraError:
            raise
        except HesseError as error:
            failed.append(str(error).removeprefix(f"{folder}/"))
    if not parsed:
        reason = f"; the first: {failed[0]}" if failed else ""
        raise FileFormatError(
            f"{folder}: none of {len(files)} outputs could be read{reason}. Expected {', '.join(sorted(QM_SUFFIXES))}."
        )
    return _dataset(folder, parsed, pairs, failed)


def _id_of_file(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _to_structures(name: str, results: list[QMResult]) -> list[tuple[Structure, Properties]]:
    names = [name] if len(results) == 1 else [f"{name}-{i}" for i in range(len(results))]
    return [result.to_labeled_structure(id) for id, result in zip(names, results, strict=True)]


def _dataset(
    source: Path,
    parsed: list[tuple[Path, list[QMResult]]],
    pairs: list[tuple[Structure, Properties]],
    failed: list[str],
) -> Dataset:
    levels = sorted({result.level for _, results in parsed for result in results if result.level})
    unused = Counter(f"{file.name}: {text}" for file, results in parsed for result in results for text in result.unused)
    metadata = {"source_units": "hartree, bohr (Gaussian archives: angstrom)"}
    if levels:
        metadata["level"] = "; ".join(levels)
    return Dataset(
        tuple(s for s, _ in pairs),
        Properties.concatenate([label for _, label in pairs]),
        metadata=metadata,
        source=str(source),
        not_read={**unused, **dict.fromkeys(failed, 1)},
    )


def _read_results(path: Path) -> list[QMResult]:
    check_input_file(path)
    text = _read_text(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".hess":
            return [read_orca_hess(path, text, lambda s: _sibling_text(path, s))]
        if suffix in (".fchk", ".fch"):
            return [read_fchk(path, text)]
        if "Entering Gaussian System" in text[:4000] or "\n 1\\1\\" in text or "Gaussian, Inc." in text[:20000]:
            return read_archives(text, str(path))
        if is_orca(text):
            hess = _sibling_text(path, ".hess")
            if hess is not None:
                return [read_orca_hess(path.with_suffix(".hess"), hess, lambda s: _sibling_text(path, s))]
            return [read_orca_output(text, str(path))]
        return [_read_with_cclib(path, text)]
    except HesseError as error:
        raise type(error)(str(error) if str(path.parent / path.stem) in str(error) else f"{path}: {error}") from None


def _read_text(path: Path) -> str:
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError(f"{path}: {path.stat().st_size >> 20} MiB, larger than any frequency calculation")
    # Names and paths may be in any encoding; numbers are ASCII.
    text = path.read_text(encoding="utf-8", errors="replace")
    if "\0" in text[:4096]:
        raise FileFormatError(f"{path}: a binary file, expected the text output of a program")
    return text


def _sibling_text(path: Path, suffix: str) -> str | None:
    sibling = path.with_suffix(suffix)
    return _read_text(sibling) if sibling.is_file() else None


# --- cclib ---------------------------------------------------------------------------------------------------------

_SCF_FAILED: Final = re.compile(
    r"SCF failed to converge|could not converge SCF|calculation failed to converge|SCF is unconverged|"
    r"SC[CF] is not converged|SC[CF] not converged|convergence criteria cannot be satisfied|did not converge",
    re.IGNORECASE,
)
"""What Q-Chem, Psi4, NWChem, GAMESS, xTB and others print when the equations were not solved."""
_NO_END_KNOWN: Final = frozenset({"Molpro"})
"""Programs of which cclib does not tell whether the job ended."""
_SAME_GEOMETRY: Final = 1e-5
"""Å."""


def _read_with_cclib(path: Path, text: str) -> QMResult:
    cclib = import_optional("cclib", extra="formats", purpose=f"reading {path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = cclib.io.ccopen(str(path), loglevel=logging.CRITICAL + 1)
            data = None if parser is None else parser.parse()
    except Exception as error:  # parsers raise errors of any type
        raise FileFormatError(
            f"{path}: cclib {cclib.__version__} cannot read it: damaged, incomplete, or of a version it does not know "
            f"({type(error).__name__}: {error})"
        ) from error
    if data is None or not hasattr(data, "atomnos"):
        raise FileFormatError(f"{path}: not an output of a known program (Gaussian, ORCA, and those of cclib)")
    program = str(data.metadata.get("package", "")) or "this program"
    n = len(data.atomnos)
    if np.shape(getattr(data, "atomcoords", ()))[1:] != (n, 3):
        raise FileFormatError(
            f"{path}: {program} printed {n} atoms but no coordinates that cclib finds. Read the geometry from its own "
            "file (.xyz) and label it again (`hesse label`)."
        )
    if program not in _NO_END_KNOWN and not data.metadata.get("success", False):
        raise FileFormatError(
            f"{path}: the job of {program} did not end normally, so that its last geometry and energy may not belong "
            "together. Run it to its end."
        )
    result = _result_from_cclib(data, cclib, text)
    if result.energy is None and result.gradient is None and result.hessian is None:
        raise FileFormatError(f"{path}: nothing in it can be used; left out: {', '.join(result.unused) or 'nothing'}")
    return result


def _result_from_cclib(data: Any, cclib: Any, text: str) -> QMResult:
    """Reliable part of cclib's record, for the last geometry of the output."""
    program = str(data.metadata.get("package", ""))
    n, unused = len(data.atomnos), []
    coordinates = np.asarray(data.atomcoords, dtype=float)
    # Programs print a geometry again when they begin to compute its frequencies.
    n_geometries = 1 + int((np.abs(np.diff(coordinates, axis=0)).max((1, 2), initial=0.0) > _SAME_GEOMETRY).sum())
    energies = np.ravel(getattr(data, "scfenergies", []))
    energy = None
    if hasattr(data, "ccenergies") or hasattr(data, "mpenergies"):
        unused.append("the energy (several, of correlated methods; it is not known which one belongs to the Hessian)")
    elif hasattr(data, "etenergies"):
        unused.append("the energy (of an excited state)")
    elif hasattr(data, "dispersionenergies") and program not in _KNOWN_TOTAL_ENERGY:
        unused.append("the energy (it may lack the dispersion correction)")
    elif _SCF_FAILED.search(text):
        unused.append("the energy (an SCF did not converge)")
    elif len(energies) < n_geometries:
        unused.append("the energy (not of the last geometry)")
    elif len(energies):
        # Divided by cclib's own factor, which restores the printed digits.
        energy = float(energies[-1]) / cclib.parser.utils.convertor(1.0, "hartree", "eV")
    level = "/".join(str(data.metadata[k]) for k in ("functional", "basis_set") if data.metadata.get(k))
    gradient = None
    grads = getattr(data, "grads", None)
    if grads is not None:
        if program in _KNOWN_GRADIENT_SIGN and np.shape(grads) == np.shape(data.atomcoords) and np.any(grads[-1]):
            gradient = np.asarray(grads[-1], dtype=float)
        else:
            unused.append("gradients (not of the last geometry, all zero, or of unknown sign)")
    hessian = getattr(data, "hessian", None)
    if hessian is not None:
        if np.size(hessian) != 9 * n * n:
            raise FileFormatError(
                f"a partial Hessian: {np.size(hessian)} elements where {n} atoms need {9 * n * n}, because some atoms "
                "were frozen. Partial Hessians are not read; compute it with all atoms free."
            )
        hessian = np.asarray(hessian, dtype=float).reshape(3 * n, 3 * n)
    elif hasattr(data, "vibfreqs"):
        unused.append("the Hessian (the program did not print it)")
    return QMResult(
        numbers=np.asarray(data.atomnos, dtype=int),
        positions=coordinates[-1],
        charge=int(getattr(data, "charge", 0)),
        multiplicity=int(getattr(data, "mult", 1)),
        energy=energy,
        gradient=gradient,
        hessian=hessian,
        frequencies=getattr(data, "vibfreqs", None),
        level=level,
        unused=tuple(unused),
    )
