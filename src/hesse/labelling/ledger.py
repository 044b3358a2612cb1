"""The ledger of a label campaign: one SQLite file, one writer, safe against being killed at any moment.

A label belongs to (structure id, digest of its geometry, digest of the engine, quantity), where the quantity is the
forces, the Hessian, the stress, or the product with one probe. Whatever changes the numbers changes a digest or the
quantity, so that a label is never taken for the answer to another question, and is found again by every campaign that
asks the same. What failed is kept as an attempt: which quantities were asked together, and why there is no answer.

The file must lie on a local disk: SQLite's write-ahead log does not work over network file systems.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from hesse.errors import FileFormatError, RequestError, WriteError
from hesse.structures import Structure

__all__ = ["Attempt", "Ledger", "Record", "StructureKey", "description_digest", "geometry_digest"]

FORMAT_VERSION = 2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS engines (digest TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    engine TEXT NOT NULL,
    structure TEXT NOT NULL,
    geometry TEXT NOT NULL,
    quantity TEXT NOT NULL,
    suspect TEXT NOT NULL,
    payload BLOB NOT NULL
);
-- With the reason for suspicion, what is known of all structures is read from the index alone.
CREATE UNIQUE INDEX IF NOT EXISTS label_keys ON labels (engine, structure, geometry, quantity, suspect);
CREATE TABLE IF NOT EXISTS attempts (
    engine TEXT NOT NULL,
    structure TEXT NOT NULL,
    geometry TEXT NOT NULL,
    asked TEXT NOT NULL,
    atoms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (engine, structure, geometry, asked)
) WITHOUT ROWID;
"""

StructureKey = tuple[str, str]
"""Structure id and geometry digest."""


@dataclass(frozen=True)
class Record:
    """One quantity of one structure: its bytes, and why it is suspect (empty when it is not)."""

    payload: bytes
    suspect_reason: str = ""


@dataclass(frozen=True)
class Attempt:
    """One question to the engine.

    Attributes:
        key: of the structure.
        asked: the quantities asked together.
        atoms: size of the structure.
        seconds: how long it took.
        reason: why there is no answer; empty when there is.
        records: the answers, by quantity; none are given back when attempts are read.
    """

    key: StructureKey
    quantities: tuple[str, ...]
    atoms: int
    seconds: float
    reason: str = ""
    records: Mapping[str, Record] = field(default_factory=dict)


def geometry_digest(structure: Structure) -> str:
    """A digest of everything an engine sees of a structure."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (structure.numbers, structure.positions, structure.cell):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(f"{structure.pbc}/{structure.charge}/{structure.multiplicity}".encode())
    return digest.hexdigest()


def description_digest(description: Mapping[str, object]) -> str:
    """A digest of a description, whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16).hexdigest()


class Ledger:
    """Labels of one engine, in a file that may hold those of others too. Use it as a context.

    Args:
        path: the file, made if missing; ":memory:" for none.
        engine: what describes the engine: name, level, settings.
        read_only: look at what another campaign may be writing.
    """

    def __init__(self, path: str | Path, *, engine: Mapping[str, object], read_only: bool = False) -> None:
        """Open or create.

        Raises:
            FileFormatError: the file is no ledger, damaged, or of another version.
            RequestError: another campaign is writing to it.
            WriteError: it cannot be created.
        """
        self.path, self._engine = path, description_digest(engine)
        self._lock = None if read_only or str(path) == ":memory:" else _acquire_lock(Path(path))
        try:
            with self._translate_errors():
                self._open(engine, read_only)
        except BaseException:
            self._close()
            raise

    def _open(self, engine: Mapping[str, object], read_only: bool) -> None:
        if read_only:
            uri = f"{Path(self.path).absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            if self._check_format() == 0:  # a campaign was killed before it wrote anything
                self._connection.close()
                self._connection = sqlite3.connect(":memory:", isolation_level=None)
                self._connection.executescript(_SCHEMA)
            return
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        # One line per commit in a log; readers and a killed writer leave the file sound. Without a power cut,
        # nothing committed is lost.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._check_format()
        self._connection.executescript(_SCHEMA)
        self._connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        self._connection.execute(
            "INSERT OR IGNORE INTO engines VALUES (?, ?)", (self._engine, json.dumps(engine, sort_keys=True))
        )

    def _check_format(self) -> int:
        """The version of the format; 0 for an empty file. Raises FileFormatError for what cannot be read."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version > FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path}: ledger format {version} is newer than this Hesse knows ({FORMAT_VERSION}); upgrade Hesse"
            )
        if version == 0 and tables:
            raise FileFormatError(
                f"{self.path}: an SQLite file, but no ledger of labels. Move it, or choose another OUT."
            )
        if 0 < version < FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path}: a ledger of format {version}, by an older Hesse, which does not tell what was asked. "
                "The labeled file beside it stays good; move the ledger away to label anew, or choose another OUT."
            )
        return int(version)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        # SQLite's own locks die with any handle on the file, so ours is closed last.
        if hasattr(self, "_connection"):
            self._connection.close()
        if self._lock is not None:
            self._lock.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise WriteError(
                f"cannot use the ledger {self.path}: {error}. Another program may be writing to it, the disk may be "
                "full, or the folder missing; what is in the ledger is safe."
            ) from error
        except sqlite3.ProgrammingError:
            raise  # ours, not the file's
        except sqlite3.DatabaseError as error:
            raise FileFormatError(
                f"{self.path}: not a sound ledger ({error}). Remove it to label from the beginning."
            ) from error

    def completed(self) -> dict[StructureKey, dict[str, str]]:
        """Of every structure, the quantities that are there, and why each is suspect (empty when it is not)."""
        result: dict[StructureKey, dict[str, str]] = {}
        with self._translate_errors():
            rows = self._connection.execute(
                "SELECT structure, geometry, quantity, suspect FROM labels WHERE engine = ?", (self._engine,)
            )
            for structure, geometry, quantity, suspect in rows:
                result.setdefault((structure, geometry), {})[quantity] = suspect
        return result

    def attempts(self) -> list[Attempt]:
        """Everything that was asked, without the answers."""
        with self._translate_errors():
            rows = self._connection.execute(
                "SELECT structure, geometry, asked, atoms, seconds, reason FROM attempts WHERE engine = ?",
                (self._engine,),
            ).fetchall()
        return [Attempt((row[0], row[1]), tuple(json.loads(row[2])), *row[3:]) for row in rows]

    def read(self, key: StructureKey, quantities: Sequence[str]) -> dict[str, Record]:
        """The records of one structure, of those `quantities` that are there."""
        placeholders = ", ".join("?" * len(quantities))
        with self._translate_errors():
            rows = self._connection.execute(
                "SELECT quantity, payload, suspect FROM labels WHERE engine = ? AND structure = ? AND geometry = ? "
                f"AND quantity IN ({placeholders})",
                (self._engine, *key, *quantities),
            ).fetchall()
        return {quantity: Record(payload, suspect) for quantity, payload, suspect in rows}

    def write(self, attempts: Iterable[Attempt]) -> None:
        """Add or replace attempts and their answers, all or none."""
        attempt_rows, label_rows = [], []
        for attempt in attempts:
            attempt_rows.append(
                (
                    self._engine,
                    *attempt.key,
                    json.dumps(attempt.quantities),
                    attempt.atoms,
                    attempt.reason,
                    attempt.seconds,
                )
            )
            label_rows += [
                (self._engine, *attempt.key, name, r.suspect_reason, r.payload) for name, r in attempt.records.items()
            ]
        with self._translate_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?)", attempt_rows
                )
                self._connection.executemany(
                    "DELETE FROM labels WHERE engine = ? AND structure = ? AND geometry = ? AND quantity = ?",
                    [row[:4] for row in label_rows],
                )
                self._connection.executemany("INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?)", label_rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _acquire_lock(path: Path) -> IO[bytes]:
    """A handle on the file that keeps other campaigns out. The lock dies with the process, however it ends."""
    try:
        handle = open(path, "ab")  # noqa: SIM115 (closed with the ledger; the lock lives as long as it)
    except OSError as error:
        raise WriteError(
            f"cannot use the ledger {path}: {error.strerror}. The folder may be missing or not writable."
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise RequestError(
            f"another campaign is writing to {path}: wait for it, stop it, or choose another OUT"
        ) from None
    except OSError:
        pass  # a file system without locks: no guard there, but no obstacle either
    return handle
