"""The ledger of a label campaign: one SQLite file, one writer, safe against being killed at any moment.

A record belongs to (structure id, digest of its geometry, digest of the engine, digest of the request). Whatever
changes the numbers changes a digest, so that a record is never taken for the answer to another question.

The file must lie on a local disk: SQLite's write-ahead log does not work over network file systems.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hesse.errors import FileFormatError, WriteError
from hesse.structures import Structure

__all__ = ["Ledger", "Record", "digest_of", "geometry_digest"]

FORMAT_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS labels (
    structure TEXT NOT NULL,
    geometry TEXT NOT NULL,
    engine TEXT NOT NULL,
    request TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed')),
    reason TEXT NOT NULL,
    seconds REAL NOT NULL,
    payload BLOB,
    PRIMARY KEY (structure, geometry, engine, request)
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Record:
    """What became of one structure."""

    structure: str
    geometry: str
    reason: str
    seconds: float
    payload: bytes | None

    @property
    def done(self) -> bool:
        """Whether there are labels."""
        return self.payload is not None


def geometry_digest(structure: Structure) -> str:
    """A digest of everything an engine sees of a structure."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (structure.numbers, structure.positions, structure.cell):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(f"{structure.pbc}/{structure.charge}/{structure.multiplicity}".encode())
    return digest.hexdigest()


def digest_of(description: Mapping[str, object]) -> str:
    """A digest of a description, whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16).hexdigest()


class Ledger:
    """Records of one engine and one request, in a file that may hold others too. Use it as a context."""

    def __init__(self, path: str | Path, *, engine: str, request: str) -> None:
        """Open or create.

        Raises:
            FileFormatError: the file is no ledger, damaged, or of a newer version.
            WriteError: it cannot be created.
        """
        self.path, self._engine, self._request = path, engine, request
        with self._replies():
            self._connection = sqlite3.connect(path, isolation_level=None)
            # One line per commit in a log; readers and a killed writer leave the file sound. Without a power cut,
            # nothing committed is lost.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version > FORMAT_VERSION:
                raise FileFormatError(
                    f"{path}: ledger format {version} is newer than this Hesse writes ({FORMAT_VERSION}); upgrade Hesse"
                )
            if version == 0 and tables:
                raise FileFormatError(
                    f"{path}: an SQLite file, but no ledger of labels. Move it, or choose another OUT."
                )
            self._connection.execute(_SCHEMA)
            self._connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    @contextmanager
    def _replies(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise WriteError(
                f"cannot use the ledger {self.path}: {error}. Another campaign may be writing to it, the disk may be "
                "full, or the folder missing; what is in the ledger is safe."
            ) from error
        except sqlite3.ProgrammingError:
            raise  # ours, not the file's
        except sqlite3.DatabaseError as error:
            raise FileFormatError(
                f"{self.path}: not a sound ledger ({error}). Remove it to label from the beginning."
            ) from error

    def known(self) -> dict[tuple[str, str], bool]:
        """(structure id, geometry digest) of every record, and whether it is done (or failed)."""
        with self._replies():
            rows = self._connection.execute(
                "SELECT structure, geometry, status FROM labels WHERE engine = ? AND request = ?",
                (self._engine, self._request),
            ).fetchall()
        return {(structure, geometry): status == "done" for structure, geometry, status in rows}

    def records(self) -> dict[tuple[str, str], Record]:
        """All records, with their labels."""
        with self._replies():
            rows = self._connection.execute(
                "SELECT structure, geometry, reason, seconds, payload FROM labels WHERE engine = ? AND request = ?",
                (self._engine, self._request),
            ).fetchall()
        return {(row[0], row[1]): Record(*row) for row in rows}

    def write(self, records: Iterable[Record]) -> None:
        """Add or replace, all or none."""
        rows = [
            (r.structure, r.geometry, self._engine, self._request, *_status(r), r.seconds, r.payload) for r in records
        ]
        with self._replies():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _status(record: Record) -> tuple[str, str]:
    return ("done" if record.done else "failed", record.reason)
