"""Outputs of quantum-chemistry programs: energy, forces and Hessian of frequency calculations.

Gaussian outputs and formatted checkpoints, and ORCA's Hessian files, are read here, because everything in them is in
one frame with all digits. Outputs of other programs (Psi4, GAMESS, Q-Chem, NWChem, …) go through cclib, and what they
give is taken only where its frame and sign are known. A Hessian must give the frequencies that its program printed.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from hesse.datasets.dataset import Dataset
from hesse.datasets.readers.gaussian import read_archives, read_checkpoint
from hesse.datasets.readers.job import Job
from hesse.datasets.readers.orca import is_orca, read_hess, read_orca_output
from hesse.datasets.readers.selection import EVERYTHING, Selection
from hesse.errors import FileFormatError, HesseError, MissingExtraError
from hesse.files import require_file
from hesse.optional import require
from hesse.structures import Labels, Structure

__all__ = ["OUTPUTS", "read_output", "read_outputs"]

OUTPUTS: Final = frozenset({".log", ".out", ".fchk", ".fch", ".hess"})
"""Suffixes of files that are taken for outputs."""
_LARGEST: Final = 1 << 30
"""Bytes; an output beyond it is no frequency calculation, and would not fit into memory several times."""
_SIGN_KNOWN: Final = frozenset({"Psi4"})
"""Programs whose `grads` of cclib are plus the derivative of the energy, in the frame of the coordinates."""
_TOTAL_KNOWN: Final = frozenset({"Psi4"})
"""Programs whose total energies of cclib hold the dispersion correction, where there is one."""


def read_output(path: str | Path) -> Dataset:
    """Read one output: Gaussian `.log`/`.out`, `.fchk`, ORCA `.hess` (with `.engrad` and `.out` beside it), and through
    cclib what else it knows. Ids are the name of the file, `-0`, `-1` where it holds several frequency jobs.

    Raises:
        FileFormatError: no output of a known program, one that did not end, or damaged.
        MissingExtraError: cclib is needed and not installed.
        IdentityError: a Hessian whose frequencies are not those printed.
    """
    path = Path(path)
    jobs = _jobs_of(path)
    try:
        pairs = _inside(path.stem, jobs)
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None
    return _dataset(path, [(path, jobs)], pairs, [])


def read_outputs(folder: str | Path, *, selection: Selection = EVERYTHING) -> Dataset:
    """Read all outputs at or below `folder`; ids are their paths. A file that cannot be read is named in `unread`, with
    the reason, and the others are read.

    An ORCA output is not read twice where its Hessian file is beside it.

    Raises:
        FileFormatError: no output there, or none that can be read.
        MissingExtraError: cclib is needed and not installed.
    """
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in OUTPUTS and p.is_file())
    files = [p for p in files if p.suffix == ".hess" or not p.with_suffix(".hess").is_file()]
    chosen = [p for p in files if selection.matches(_name(folder, p))]
    if files and not chosen:
        raise selection.nothing(folder, [_name(folder, p) for p in files[:3]])
    read: list[tuple[Path, list[Job]]] = []
    failed: list[str] = []
    pairs: list[tuple[Structure, Labels]] = []
    for k in selection.choose(len(chosen)):
        file = chosen[k]
        try:
            jobs = _jobs_of(file)
            pairs += _inside(_name(folder, file), jobs)
            read.append((file, jobs))
        except MissingExtraError:
            raise
        except HesseError as error:
            failed.append(str(error).removeprefix(f"{folder}/"))
    if not read:
        reason = f"; the first: {failed[0]}" if failed else ""
        raise FileFormatError(
            f"{folder}: none of {len(files)} outputs could be read{reason}. Expected {', '.join(sorted(OUTPUTS))}."
        )
    return _dataset(folder, read, pairs, failed)


def _name(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _inside(name: str, jobs: list[Job]) -> list[tuple[Structure, Labels]]:
    names = [name] if len(jobs) == 1 else [f"{name}-{i}" for i in range(len(jobs))]
    return [job.inside(id) for id, job in zip(names, jobs, strict=True)]


def _dataset(
    source: Path, read: list[tuple[Path, list[Job]]], pairs: list[tuple[Structure, Labels]], failed: list[str]
) -> Dataset:
    every = [job for _, jobs in read for job in jobs]
    levels = sorted({job.level for job in every if job.level})
    unread = sorted({f"{file.name}: {word}" for file, jobs in read for job in jobs for word in job.unread})
    attributes = {"source_units": "hartree, bohr (Gaussian archives: angstrom)"}
    if levels:
        attributes["level"] = "; ".join(levels)
    return Dataset(
        tuple(s for s, _ in pairs),
        Labels.concatenate([label for _, label in pairs]),
        attributes=attributes,
        source=str(source),
        unread=(*unread, *failed),
    )


def _jobs_of(path: Path) -> list[Job]:
    require_file(path)
    text = _text(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".hess":
            return [read_hess(path, text, lambda s: _beside(path, s))]
        if suffix in (".fchk", ".fch"):
            return [read_checkpoint(path, text)]
        if "Entering Gaussian System" in text[:4000] or "\n 1\\1\\" in text or "Gaussian, Inc." in text[:20000]:
            return read_archives(text, str(path))
        if is_orca(text):
            hess = _beside(path, ".hess")
            if hess is not None:
                return [read_hess(path.with_suffix(".hess"), hess, lambda s: _beside(path, s))]
            return [read_orca_output(text, str(path))]
        return [_through_cclib(path)]
    except HesseError as error:
        raise type(error)(str(error) if str(path.parent / path.stem) in str(error) else f"{path}: {error}") from None


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise FileFormatError(f"{path}: {path.stat().st_size >> 20} MiB, larger than any frequency output that is read")
    # Outputs hold names and paths in any encoding; numbers are ASCII.
    text = path.read_text(encoding="utf-8", errors="replace")
    if "\0" in text[:4096]:
        raise FileFormatError(f"{path}: a binary file, expected the text output of a program")
    return text


def _beside(path: Path, suffix: str) -> str | None:
    other = path.with_suffix(suffix)
    return _text(other) if other.is_file() else None


# --- cclib ---------------------------------------------------------------------------------------------------------


def _through_cclib(path: Path) -> Job:
    cclib = require("cclib", extra="formats", purpose=f"reading {path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = cclib.io.ccopen(str(path), loglevel=logging.CRITICAL + 1)
            data = None if parser is None else parser.parse()
    except Exception as error:  # each parser raises what it likes
        raise FileFormatError(
            f"{path}: cclib {cclib.__version__} cannot read it: damaged, incomplete, or of a version it does not know "
            f"({type(error).__name__}: {error})"
        ) from error
    if data is None or not hasattr(data, "atomcoords") or not hasattr(data, "atomnos"):
        raise FileFormatError(f"{path}: no output of a program that is known here (Gaussian, ORCA, and those of cclib)")
    job = _job_of(data, cclib)
    if job.energy is None and job.gradient is None and job.hessian is None:
        raise FileFormatError(f"{path}: nothing that can be used; not read: {', '.join(job.unread) or 'nothing there'}")
    return job


def _job_of(data: Any, cclib: Any) -> Job:
    """What of cclib's record can be believed, for the last geometry of the output."""
    program = str(data.metadata.get("package", ""))
    n, unread = len(data.atomnos), []
    energy = None
    if hasattr(data, "ccenergies") or hasattr(data, "mpenergies"):
        unread.append("the energy (several, of correlated methods; which one is meant is not known)")
    elif hasattr(data, "dispersionenergies") and program not in _TOTAL_KNOWN:
        unread.append("the energy (it may lack the dispersion correction)")
    elif hasattr(data, "scfenergies"):
        # By cclib's own factor, so that its digits come back.
        energy = float(np.ravel(data.scfenergies)[-1]) / cclib.parser.utils.convertor(1.0, "hartree", "eV")
    level = "/".join(str(data.metadata[k]) for k in ("functional", "basis_set") if data.metadata.get(k))
    gradient = None
    grads = getattr(data, "grads", None)
    if grads is not None:
        if program in _SIGN_KNOWN and np.shape(grads) == np.shape(data.atomcoords):
            gradient = np.asarray(grads[-1], dtype=float)
        else:
            unread.append("gradients (not of the last geometry, or of unknown sign)")
    hessian = getattr(data, "hessian", None)
    if hessian is not None:
        hessian = np.asarray(hessian, dtype=float).reshape(3 * n, 3 * n)
    elif hasattr(data, "vibfreqs"):
        unread.append("the Hessian (the program did not print it)")
    return Job(
        numbers=np.asarray(data.atomnos, dtype=int),
        positions=np.asarray(data.atomcoords[-1], dtype=float),
        charge=int(getattr(data, "charge", 0)),
        multiplicity=int(getattr(data, "mult", 1)),
        energy=energy,
        gradient=gradient,
        hessian=hessian,
        frequencies=getattr(data, "vibfreqs", None),
        level=level,
        unread=tuple(unread),
    )
