"""Files of ASE: trajectories (`.traj`) and data bases (`.db`, SQLite). Neither holds code, but JSON and arrays."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from ase import Atoms

from hesse.datasets.ase_atoms import AtomsReader
from hesse.datasets.dataset import Dataset
from hesse.errors import FileFormatError, HesseError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties

__all__ = ["dataset_of_frames", "read_ase_database", "read_trajectory"]

_TRAJECTORY_MAGIC: Final = b"- of UlmASE-Trajectory"
_SQLITE_MAGIC: Final = b"SQLite format 3\0"


def read_trajectory(path: str | Path) -> Dataset:
    """Read a trajectory of ASE. Labels are the results that its calculator stored.

    Args:
        path: the file.

    Returns:
        Structures and labels in eV and Å.

    Raises:
        FileFormatError: damaged, or an old trajectory, which is a pickle.
        HesseError: see `AtomsReader.add`.
    """
    path = Path(path)
    if not _begins_with(path, _TRAJECTORY_MAGIC):
        raise FileFormatError(
            f"{path}: not a trajectory of ASE 3.9 or later. Older ones are pickles, which can run code; convert it "
            "where you trust it: python -m ase.io.trajectory FILE"
        )

    def frames() -> Iterator[Atoms]:
        from ase.io.trajectory import TrajectoryReader  # imports half of ASE

        with TrajectoryReader(str(path)) as reader:
            yield from reader

    return dataset_of_frames(path, frames)


def read_ase_database(path: str | Path) -> Dataset:
    """Read the rows of a data base of ASE in a file (SQLite). The file does not change, and servers are not asked.

    Args:
        path: the file.

    Returns:
        Structures and labels in eV and Å. The charge is read from key-value pairs; others are not.

    Raises:
        FileFormatError: damaged, another SQLite file, or one with views or triggers.
        HesseError: see `AtomsReader.add`.
    """
    path = Path(path)
    if not _begins_with(path, _SQLITE_MAGIC):
        raise FileFormatError(f"{path}: not an SQLite file, in which ASE keeps its data bases; JSON ones are not read")
    _check_schema(path)

    def frames() -> Iterator[Atoms]:
        from ase.db import connect

        for row in connect(str(path.resolve()), type="db", use_lock_file=False).select():
            atoms = row.toatoms()
            atoms.info |= row.key_value_pairs
            if getattr(row, "_data", None):
                atoms.info["data"] = "not read"
            yield atoms

    return dataset_of_frames(path, frames)


def _begins_with(path: Path, magic: bytes) -> bool:
    check_input_file(path)
    with open(path, "rb") as handle:
        return handle.read(len(magic)) == magic


def _check_schema(path: Path) -> None:
    """Refuse what is no data base of ASE, in which opening it would create one, and what computes when it is read."""
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            entries = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise FileFormatError(f"{path}: damaged, or not an SQLite file ({error})") from error
    if ("table", "systems") not in entries or ("table", "information") not in entries:
        raise FileFormatError(f"{path}: SQLite, but not a data base of ASE (it has no tables systems and information)")
    if odd := [name for kind, name in entries if kind not in ("table", "index")]:
        raise FileFormatError(f'{path}: holds a view or trigger ("{odd[0]}"), which no data base of ASE has')


def dataset_of_frames(path: Path, frames: Callable[[], Iterator[Atoms]]) -> Dataset:
    """Make a data set of atoms that ASE reads from a file.

    Args:
        path: the file, for messages and ids.
        frames: gives the atoms, one after the other.

    Returns:
        Structures and labels. Ids are those in `atoms.info["structure_id"]`, or the name of the file and a number.

    Raises:
        FileFormatError: the file is damaged, or holds no structure.
        HesseError: atoms that are not valid; the message names which.
    """
    reader = AtomsReader()
    named: list[bool] = []
    try:
        for atoms in frames():
            reader.add(atoms)
            named.append("structure_id" in atoms.info)
    except HesseError as error:
        raise type(error)(f"{path}: structure {len(named)}: {error}") from None
    except Exception as error:  # the readers raise errors of many types
        raise FileFormatError(
            f"{path}: structure {len(named)} cannot be read: {type(error).__name__}: {error}"
        ) from error
    if not named:
        raise FileFormatError(f"{path}: holds no structure")
    structures = tuple(reader.structures)
    if not any(named):
        names = [path.stem] if len(named) == 1 else [f"{path.stem}-{i}" for i in range(len(named))]
        structures = tuple(replace(s, id=name) for s, name in zip(structures, names, strict=True))
    labels = Properties.concatenate(reader.labels)
    return Dataset(structures, labels, metadata=reader.metadata(), source=str(path), not_read=reader.not_read)
