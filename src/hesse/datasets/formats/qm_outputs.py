"""Outputs of quantum-chemistry programs: energy, forces and Hessian of frequency calculations.

Gaussian outputs, formatted checkpoint files and ORCA's Hessian files have their own readers, because they hold
geometry, gradient and Hessian in one orientation with all digits. Other outputs (Psi4, GAMESS, Q-Chem, NWChem, …) are
read with cclib, and quantities whose orientation or sign is uncertain are left out. Every Hessian must reproduce the
frequencies that its program printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Final

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.cclib_outputs import read_with_cclib
from hesse.datasets.formats.gaussian import read_archives
from hesse.datasets.formats.gaussian_checkpoint import read_fchk
from hesse.datasets.formats.orca import is_orca, read_orca_hess, read_orca_output
from hesse.datasets.formats.qm_result import QMResult
from hesse.datasets.formats.subset import ALL, SubsetLike, as_subset
from hesse.errors import FileFormatError, HesseError, MissingExtraError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties, Structure

__all__ = ["QM_SUFFIXES", "is_qm_output", "read_qm_folder", "read_qm_output"]

QM_SUFFIXES: Final = frozenset({".log", ".out", ".fchk", ".fch", ".hess"})
"""Suffixes of files that are read as outputs."""
_MAX_BYTES: Final = 1 << 30
"""Largest size of an output; the text is held in memory several times."""
_TITLE_LENGTH: Final = 20000
"""Characters at the beginning of an output that name the program."""


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
        is the name of the file. If there are several jobs, their titles are appended (`name:title`) where all have
        different ones, otherwise `-0`, `-1`, … Jobs of the same geometry have one group.

    Raises:
        FileFormatError: unknown program, incomplete output, or a damaged file.
        MissingExtraError: cclib is needed and not installed.
        InconsistentLabelsError: the Hessian gives other frequencies than those printed.
    """
    path = Path(path)
    results = _read_results(path)
    try:
        pairs = _to_structures(path.stem, results, {path.stem})
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None
    return _dataset(path, [(path, results)], pairs, [])


def read_qm_folder(folder: str | Path, *, subset: SubsetLike = ALL) -> Dataset:
    """Read all outputs at or below a folder. Files that cannot be read are listed with the reason in `not_read`.

    An ORCA output is skipped if its Hessian file is in the same folder, since that reads both.

    Args:
        folder: where the search begins.
        subset: the part of the files to read; ids are paths below `folder`, without suffix where that is enough to
            distinguish them.

    Returns:
        A structure for every frequency job, as for `read_qm_output`. Structures of the same geometry have one group.

    Raises:
        FileFormatError: the folder holds no output, or none that can be read.
        MissingExtraError: cclib is needed and not installed.
        RequestError: no file matches the subset.
    """
    folder, subset = Path(folder), as_subset(subset)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in QM_SUFFIXES and p.is_file())
    id_of = _ids_of_files(folder, [p for p in files if not _is_read_with_hessian(p)])
    candidates = [p for p in id_of if subset.matches(id_of[p])]
    if files and not candidates:
        raise subset.no_match_error(folder, list(id_of.values())[:3])
    taken = set(id_of.values())
    parsed: list[tuple[Path, list[QMResult]]] = []
    failed: list[str] = []
    pairs: list[tuple[Structure, Properties]] = []
    for k in subset.indices(len(candidates)):
        file = candidates[k]
        try:
            results = _read_results(file)
            pairs += _to_structures(id_of[file], results, taken)
            parsed.append((file, results))
        except MissingExtraError:
            raise
        except HesseError as error:
            failed.append(str(error).removeprefix(f"{folder}/"))
    if not parsed:
        reason = f"; the first: {failed[0]}" if failed else ""
        raise FileFormatError(
            f"{folder}: none of {len(id_of)} outputs could be read{reason}. Expected {', '.join(sorted(QM_SUFFIXES))}."
        )
    return _dataset(folder, parsed, pairs, failed)


def _is_read_with_hessian(file: Path) -> bool:
    """Whether an output is one of ORCA that is read together with its Hessian file."""
    if file.suffix.lower() not in (".out", ".log") or not file.with_suffix(".hess").is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as lines:
        return is_orca(lines.read(_TITLE_LENGTH))


def _ids_of_files(folder: Path, files: list[Path]) -> dict[Path, str]:
    """Paths below the folder, without suffix unless two files differ by nothing else."""
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    count = Counter(names)
    return {
        file: name if count[name] == 1 else file.relative_to(folder).as_posix()
        for file, name in zip(files, names, strict=True)
    }


def _ids_of_jobs(name: str, results: list[QMResult], taken: Container[str]) -> list[str]:
    """Ids of the jobs of a file: its name, titles if they distinguish the jobs, or numbers; none that a file has."""
    if len(results) == 1:
        return [name]
    titles = [f"{name}:{result.title}" for result in results if result.title]
    numbers = ([f"{name}{separator}{i}" for i in range(len(results))] for separator in "-:#")
    candidates = [titles, *numbers] if len(set(titles)) == len(results) else numbers
    return next(ids for ids in candidates if not any(id in taken for id in ids) or "#" in ids[0])


def _to_structures(name: str, results: list[QMResult], taken: Container[str]) -> list[tuple[Structure, Properties]]:
    names = _ids_of_jobs(name, results, taken)
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
    dataset = Dataset(
        tuple(s for s, _ in pairs),
        Properties.concatenate([label for _, label in pairs]),
        metadata=metadata,
        source=str(source),
        not_read={**unused, **dict.fromkeys(failed, 1)},
    )
    groups, n_repeated = dataset.split_groups()
    if not n_repeated:
        return dataset
    structures = tuple(replace(s, group=group) for s, group in zip(dataset.structures, groups, strict=True))
    return replace(dataset, structures=structures)


def _read_results(path: Path) -> list[QMResult]:
    check_input_file(path)
    text = _read_text(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".hess":
            return [read_orca_hess(path, text, lambda s: _sibling_text(path, s))]
        if suffix in (".fchk", ".fch"):
            return [read_fchk(path, text)]
        if "Entering Gaussian System" in text[:4000] or "\n 1\\1\\" in text or "Gaussian, Inc." in text[:_TITLE_LENGTH]:
            return read_archives(text, str(path))
        if is_orca(text):
            hess = _sibling_text(path, ".hess")
            if hess is not None:
                return [read_orca_hess(path.with_suffix(".hess"), hess, lambda s: _sibling_text(path, s))]
            return [read_orca_output(text, str(path))]
        return [read_with_cclib(path, text)]
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
