"""The journal of many searches (minima, bands, saddle points, paths, reactions): finished ones are not repeated when an
interrupted run is started again.

One line of JSON for each finished search, written at once, with its checksum. The key of a search is a digest of
everything that determines its result: ids and geometries of its structures, engine and options. Lines that are
damaged or cut off count as missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engines import Engine
from hesse.errors import FileFormatError, WriteError
from hesse.runtime.filesystem import lock_file
from hesse.structures import Structure

__all__ = ["FinishedSearch", "SearchJournal", "journal_path", "search_key"]

_FIRST_LINE = '{"format": "hesse-searches", "version": 2}'


@dataclass(frozen=True, eq=False)
class FinishedSearch:
    """The result of one search.

    Attributes:
        row: what is told of it; JSON values by name.
        arrays: its geometries, forces, Hessians, ... by name.
    """

    row: Mapping[str, Any]
    arrays: Mapping[str, Float[Array, "..."]]


def journal_path(output: Path) -> Path:
    """Path of the journal of an output file, in the same folder.

    Args:
        output: the output file.

    Returns:
        `output` with the ending `.searches.jsonl` added.
    """
    return Path(f"{output}.searches.jsonl")


def search_key(structures: Structure | Sequence[Structure], engine: Engine, options: Mapping[str, Any]) -> str:
    """Digest of everything that determines the result of a search.

    Args:
        structures: the guess, or both ends.
        engine: the engine.
        options: options of the search; JSON values by name.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    state: list[Any] = []
    for structure in [structures] if isinstance(structures, Structure) else structures:
        for array in (structure.numbers, structure.positions, structure.cell, structure.atomic_masses):
            digest.update(np.ascontiguousarray(array).tobytes())
        state += [structure.id, list(structure.pbc), structure.charge, structure.multiplicity]
    level = [engine.name, engine.level, dict(engine.settings)]
    digest.update(json.dumps([state, level, dict(options)], sort_keys=True, default=str).encode())
    return digest.hexdigest()


class SearchJournal:
    """The finished searches in a file, to which others are added. Made by `SearchJournal.open`.

    Attributes:
        path: the file.
        n_damaged: number of lines that cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines, self.n_damaged = _read(path)

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[SearchJournal]:
        """Context in which this process alone writes to the journal.

        Args:
            path: the file, created by the first search.

        Yields:
            The journal.

        Raises:
            RequestError: another process writes to it.
            FileFormatError: the file is something else.
            WriteError: the folder is missing or not writable.
        """
        lock = path.with_name(f".{path.name}.lock")
        with lock_file(lock, f"another search writes to {path}: wait for it, stop it, or choose another OUT"):
            yield cls(path)

    def finished(self, key: str) -> FinishedSearch | None:
        """The result of a search.

        Args:
            key: key of the search.

        Returns:
            The result, or None.
        """
        return self._lines.get(key)

    def add(self, key: str, search: FinishedSearch) -> None:
        """Write the result of a search.

        Args:
            key: key of the search.
            search: its result.

        Raises:
            WriteError: the file cannot be written.
        """
        values = {
            "key": key,
            "row": dict(search.row),
            "arrays": {name: _encode(values) for name, values in search.arrays.items()},
        }
        text = json.dumps(values, allow_nan=False)
        line = json.dumps({"checksum": _checksum(text), "search": text})
        try:
            with open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                start = f"{_FIRST_LINE}\n" if size == 0 else ""
                if size:
                    file.seek(size - 1)
                    start = "" if file.read(1) == b"\n" else "\n"  # the last line was cut off
                file.write(f"{start}{line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WriteError(f"cannot write {self.path}: {error.strerror}") from error


def _read(path: Path) -> tuple[dict[str, FinishedSearch], int]:
    """The sound lines by key, and the number of others. Raises FileFormatError for another kind of file."""
    if not path.exists() and not path.is_symlink():
        return {}, 0
    if path.is_symlink() or not path.is_file():
        raise FileFormatError(f"{path}: expected a journal of searches, found no regular file. Choose another OUT.")
    first, *lines = path.read_bytes().split(b"\n")
    if first and first != _FIRST_LINE.encode() and not _FIRST_LINE.encode().startswith(first):
        raise FileFormatError(f"{path}: not a journal of searches. Move it, or choose another OUT.")
    searches: dict[str, FinishedSearch] = {}
    n_damaged = 0
    for line in filter(None, lines):
        try:
            outer = json.loads(line)
            if outer["checksum"] != _checksum(outer["search"]):
                raise ValueError("its checksum differs")
            values = json.loads(outer["search"])
            arrays = {name: _decode(values) for name, values in values["arrays"].items()}
            searches[values["key"]] = FinishedSearch(values["row"], arrays)
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
            n_damaged += 1
    return searches, n_damaged


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _encode(values: Float[Array, "..."]) -> dict[str, Any]:
    data = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return {"shape": list(np.shape(values)), "data": base64.b64encode(data).decode()}


def _decode(encoded: Mapping[str, Any]) -> Float[Array, "..."]:
    """Raises ValueError (binascii.Error is one) where the numbers do not have the shape."""
    data = base64.b64decode(encoded["data"], validate=True)
    return np.frombuffer(data, dtype="<f8").astype(float).reshape(encoded["shape"])
