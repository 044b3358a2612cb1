"""The ledger of a label campaign: one SQLite file with one writer, which stays sound when the process is killed.

The key of a label is (structure id, digest of its geometry, digest of the engine, quantity), where the quantity is the
forces, the Hessian, the stress, or the product with one probe. Everything that changes the numbers changes a digest or
the quantity. A label is therefore reused by every campaign that requests the same quantity, and by no other. A failure
is kept as an attempt: the quantities that were requested together, and the reason why there is no result.

The file must lie on a local disk: SQLite's write-ahead log does not work over network file systems. The lock of the
writer is an empty file beside it, `.NAME.lock`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hesse.errors import FileFormatError, WriteError
from hesse.runtime.filesystem import lock_file
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
-- The index includes the reason for suspicion, so that `completed` reads the index alone.
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
    """One quantity of one structure.

    Attributes:
        payload: its labels as bytes.
        suspect_reason: why they are suspect; empty if they are not.
    """

    payload: bytes
    suspect_reason: str = ""


@dataclass(frozen=True)
class Attempt:
    """One computation of one structure.

    Attributes:
        key: key of the structure.
        quantities: the quantities that were requested together.
        atoms: number of atoms.
        seconds: time of the engine, s.
        reason: why there is no result; empty if there is one.
        records: the results by quantity; empty in attempts that are read from a ledger.
    """

    key: StructureKey
    quantities: tuple[str, ...]
    atoms: int
    seconds: float
    reason: str = ""
    records: Mapping[str, Record] = field(default_factory=dict)


def geometry_digest(structure: Structure) -> str:
    """Digest of everything in a structure that an engine uses.

    Args:
        structure: the structure.

    Returns:
        32 hexadecimal digits that depend on elements, positions, cell, periodicity, charge and multiplicity.
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in (structure.numbers, structure.positions, structure.cell):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(f"{structure.pbc}/{structure.charge}/{structure.multiplicity}".encode())
    return digest.hexdigest()


def description_digest(description: Mapping[str, object]) -> str:
    """Digest of a description.

    Args:
        description: values that JSON can hold, by name.

    Returns:
        32 hexadecimal digits that do not depend on the order of the keys.
    """
    return hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16).hexdigest()


class Ledger:
    """The labels of one engine, in a file that may also hold those of other engines. A context manager.

    Args:
        path: the file, created if missing; ":memory:" for no file.
        engine: description of the engine: name, level, settings.
        read_only: only read; another campaign may be writing to the file.
    """

    def __init__(self, path: str | Path, *, engine: Mapping[str, object], read_only: bool = False) -> None:
        """Open or create the file.

        Raises:
            FileFormatError: the file is not a ledger, damaged, or of another version.
            RequestError: another campaign is writing to it.
            WriteError: it cannot be created.
        """
        self.path, self._engine = path, description_digest(engine)
        self._resources = ExitStack()
        with self._resources:
            if not read_only and str(path) != ":memory:":
                busy = f"another campaign is writing to {path}: wait for it, stop it, or choose another OUT"
                self._resources.enter_context(lock_file(_lock_path(Path(path)), busy))
            with self._translate_errors():
                self._open(engine, read_only)
            self._resources = self._resources.pop_all()

    def _open(self, engine: Mapping[str, object], read_only: bool) -> None:
        if read_only:
            uri = f"{Path(self.path).absolute().as_uri()}?mode=ro"
            self._connection = self._connect(uri, uri=True)
            if self._check_format() == 0:  # a campaign was killed before it wrote anything
                self._connection = self._connect(":memory:")
                self._connection.executescript(_SCHEMA)
            return
        self._connection = self._connect(self.path)
        # Commits go to a write-ahead log: the file stays sound with readers and when the writer is killed. Only a power
        # cut can lose commits, the last ones.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._check_format()
        self._connection.executescript(_SCHEMA)
        self._connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        self._connection.execute(
            "INSERT OR IGNORE INTO engines VALUES (?, ?)", (self._engine, json.dumps(engine, sort_keys=True))
        )

    def _connect(self, database: str | Path, uri: bool = False) -> sqlite3.Connection:
        return self._resources.enter_context(closing(sqlite3.connect(database, uri=uri, isolation_level=None)))

    def _check_format(self) -> int:
        """Version of the format; 0 for an empty file. Raises FileFormatError for a file that cannot be read."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version > FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path}: ledger format {version} is newer than this Hesse knows ({FORMAT_VERSION}); upgrade Hesse"
            )
        if version == 0 and tables:
            raise FileFormatError(
                f"{self.path}: an SQLite file, but not a ledger of labels. Move it, or choose another OUT."
            )
        if 0 < version < FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path}: a ledger of format {version}, by an older Hesse, which does not record the requests. "
                "The labeled file beside it stays valid; move the ledger away to label again, or choose another OUT."
            )
        return int(version)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

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
            raise  # an error of this program, not of the file
        except sqlite3.DatabaseError as error:
            raise FileFormatError(
                f"{self.path}: not a sound ledger ({error}). Remove it to label from the beginning."
            ) from error

    def completed(self) -> dict[StructureKey, dict[str, str]]:
        """Read which quantities are there.

        Returns:
            For every structure, the names of its quantities, each with the reason why it is suspect (empty if it is
            not).
        """
        result: dict[StructureKey, dict[str, str]] = {}
        with self._translate_errors():
            rows = self._connection.execute(
                "SELECT structure, geometry, quantity, suspect FROM labels WHERE engine = ?", (self._engine,)
            )
            for structure, geometry, quantity, suspect in rows:
                result.setdefault((structure, geometry), {})[quantity] = suspect
        return result

    def attempts(self) -> list[Attempt]:
        """Read the attempts.

        Returns:
            All attempts, without their records.
        """
        with self._translate_errors():
            rows = self._connection.execute(
                "SELECT structure, geometry, asked, atoms, seconds, reason FROM attempts WHERE engine = ?",
                (self._engine,),
            ).fetchall()
        return [Attempt((row[0], row[1]), tuple(json.loads(row[2])), *row[3:]) for row in rows]

    def read(self, key: StructureKey, quantities: Sequence[str]) -> dict[str, Record]:
        """Read the records of one structure.

        Args:
            key: key of the structure.
            quantities: names of the quantities.

        Returns:
            The records of those that are there, by name.
        """
        placeholders = ", ".join("?" * len(quantities))
        with self._translate_errors():
            rows = self._connection.execute(
                "SELECT quantity, payload, suspect FROM labels WHERE engine = ? AND structure = ? AND geometry = ? "
                f"AND quantity IN ({placeholders})",
                (self._engine, *key, *quantities),
            ).fetchall()
        return {quantity: Record(payload, suspect) for quantity, payload, suspect in rows}

    def write(self, attempts: Iterable[Attempt]) -> None:
        """Add or replace attempts and their records, in one transaction.

        Args:
            attempts: the attempts.
        """
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


def _lock_path(path: Path) -> Path:
    """Path of the lock of a ledger: beside the file itself, also if `path` is a link to it."""
    path = path.resolve()
    return path.with_name(f".{path.name}.lock")
