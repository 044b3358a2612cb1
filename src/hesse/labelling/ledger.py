"""The ledger of a label campaign: one SQLite file with one writer, which stays sound when the process is killed.

The key of a label is (structure id, digest of its geometry, digest of the engine, quantity), where the quantity is the
forces, the Hessian, the stress, or the product with one probe. Everything that changes the numbers changes a digest or
the quantity. A label is therefore reused by every campaign that requests the same quantity, and by no other. A failure
is kept as an attempt: the quantities that were requested together, and the reason why there is no result.

Every row has a checksum of all its values. A row that was damaged on the disk is never used: it is left out when the
file is opened, and the plan asks for its quantity again. A file that SQLite cannot follow any more is rebuilt from its
sound rows; the damaged file is kept aside.

The file must lie on a local disk: SQLite's write-ahead log does not work over network file systems. The lock of the
writer is an empty file beside it, `.NAME.lock`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from hesse.errors import FileFormatError, WriteError
from hesse.labelling.ledger_records import Attempt, Record, StructureKey, description_digest
from hesse.labelling.ledger_repair import salvage, write_rebuilt
from hesse.labelling.ledger_schema import (
    ATTEMPT_COLUMNS,
    FORMAT_VERSION,
    LABEL_COLUMNS,
    SCHEMA,
    WITHOUT_CHECKSUMS,
    decode_text,
    has_old_columns,
    is_sound_row,
    row_checksum,
)
from hesse.runtime.filesystem import free_name, lock_file

__all__ = ["Ledger"]

_DAMAGED_FILE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")
_REASONS = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "the file or its folder is read-only",
    "SQLITE_CANTOPEN": "it cannot be created or opened: is its folder there and writable?",
    "SQLITE_BUSY": "another program is using it",
    "SQLITE_IOERR": "the disk reports an error, or is full",
}


class Ledger:
    """The labels of one engine, in a file that may also hold those of other engines. A context manager.

    Args:
        path: the file, created if missing; ":memory:" for no file.
        engine: description of the engine: name, level, settings.
        read_only: only read; another campaign may be writing to the file.

    Attributes:
        path: the file.
        messages: what the user must know about the file: damaged rows, rows without checksums.
        damaged: keys of the structures of this engine that have a damaged record, where the key can be read.
    """

    def __init__(self, path: str | Path, *, engine: Mapping[str, object], read_only: bool = False) -> None:
        """Open or create the file. Rows whose checksum differs are removed; a damaged file is rebuilt.

        Raises:
            FileFormatError: the file is not a ledger, or of another version.
            RequestError: another campaign is writing to it.
            WriteError: it cannot be created.
        """
        self.path, self._engine = path, description_digest(engine)
        self.messages: list[str] = []
        self.damaged: set[StructureKey] = set()
        self._resources = ExitStack()
        with self._resources:
            if str(path) != ":memory:":
                _refuse_links(Path(path))
                if not read_only:
                    busy = f"another campaign is writing to {path}: wait for it, stop it, or choose another OUT"
                    self._resources.enter_context(lock_file(_lock_path(Path(path)), busy))
            with self._translate_errors():
                self._open(engine, read_only)
            self._resources = self._resources.pop_all()

    def _open(self, engine: Mapping[str, object], read_only: bool) -> None:
        try:
            version = self._open_file(read_only)
        except UnicodeDecodeError:  # SQLite quotes damaged names in its messages
            version = None
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            version = None
        if version is None:
            self._salvage(read_only)
        if read_only:
            return
        # Commits go to a write-ahead log: the file stays sound with readers and when the writer is killed. Only a power
        # cut can lose commits, the last ones.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        if version == WITHOUT_CHECKSUMS:
            self._add_checksums()
        self._connection.executescript(SCHEMA)
        self._connection.execute(
            "INSERT OR IGNORE INTO engines VALUES (?, ?)", (self._engine, json.dumps(engine, sort_keys=True))
        )

    def _open_file(self, read_only: bool) -> int | None:
        """Connect, and check all rows. Returns the version, 0 for an empty file; None if it must be rebuilt."""
        if read_only:
            self._connection = self._connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True)
        else:
            self._connection = self._connect(self.path)
        version = self._check_format()
        if version == 0 and read_only:  # a campaign was killed before it wrote anything
            self._connection = self._connect(":memory:")
            self._connection.executescript(SCHEMA)
        if version == 0:
            return version
        if self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            return None
        if version == WITHOUT_CHECKSUMS:
            if not has_old_columns(self._connection):
                return None
            if read_only:
                self._copy_to_memory()
            return version
        return version if self._count_damaged() == 0 else None

    def _connect(self, database: str | Path, uri: bool = False) -> sqlite3.Connection:
        connection = self._resources.enter_context(closing(sqlite3.connect(database, uri=uri, isolation_level=None)))
        connection.text_factory = decode_text
        return connection

    def _check_format(self) -> int:
        """Version of the format; 0 for an empty file. Raises FileFormatError for a file that cannot be read."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version != FORMAT_VERSION and "checksum" in self._columns("labels") & self._columns("attempts"):
            return FORMAT_VERSION  # the number in the header was damaged
        if version > FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path}: ledger format {version} is newer than this Hesse knows ({FORMAT_VERSION}); upgrade Hesse"
            )
        if version == 0 and tables:
            raise FileFormatError(
                f"{self.path}: an SQLite file, but not a ledger of labels. Move it, or choose another OUT."
            )
        if 0 < version < WITHOUT_CHECKSUMS:
            raise FileFormatError(
                f"{self.path}: a ledger of format {version}, by an older Hesse, which does not record the requests. "
                "The labeled file beside it stays valid; move the ledger away to label again, or choose another OUT."
            )
        return int(version)

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}

    def _count_damaged(self) -> int:
        """Number of rows whose checksum differs; notes the structures of this engine that they belong to."""
        count = 0
        for columns, table in ((LABEL_COLUMNS, "labels NOT INDEXED"), (ATTEMPT_COLUMNS, "attempts")):
            for *values, checksum in self._connection.execute(f"SELECT {columns}, checksum FROM {table}"):
                if not is_sound_row(tuple(values), checksum):
                    count += 1
                    self.damaged.add((str(values[1]), str(values[2])))
        return count

    def _salvage(self, read_only: bool) -> None:
        """Replace a damaged ledger by one of its sound rows; the file itself stays beside it."""
        path = Path(self.path).resolve()
        self._resources.pop_all().close() if read_only else self._connection.close()
        rows = salvage(path)
        if rows is None:
            raise FileFormatError(
                f"{self.path}: not a sound ledger: no record in it can be read. Move it aside, or choose another OUT."
            )
        labels, attempts = rows
        message = f"{self.path}: the ledger is damaged; {len(labels)} records in it are sound"
        if read_only:
            self._connection = self._connect(":memory:")
            self._connection.executescript(SCHEMA)
            self._insert_rows(labels, attempts)
            self.messages.append(f"{message}, and the others count as missing")
            return
        aside = free_name(path, "damaged")
        aside.write_bytes(path.read_bytes())
        write_rebuilt(path, labels, attempts)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        self._connection = self._connect(self.path)
        self.messages.append(f"{message} and kept, and the others are computed again (the damaged file is {aside})")

    def _insert_rows(self, labels: Sequence[tuple[object, ...]], attempts: Sequence[tuple[object, ...]]) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?)", labels)
        self._connection.executemany("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", attempts)

    def _copy_to_memory(self) -> None:
        """Read a ledger without checksums as if it had some; the file itself is left as it is."""
        source = self._connection
        self._connection = self._connect(":memory:")
        source.backup(self._connection)
        self._add_checksums()

    def _add_checksums(self) -> None:
        """Give the rows of an older ledger the checksums of what they hold now."""
        (n_records,) = self._connection.execute("SELECT count(*) FROM labels").fetchone()
        self._connection.create_function("row_checksum", -1, row_checksum, deterministic=True)
        self._connection.execute("BEGIN IMMEDIATE")
        for table, columns in (("labels", LABEL_COLUMNS), ("attempts", ATTEMPT_COLUMNS)):
            self._connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum BLOB")
            self._connection.execute(f"UPDATE {table} SET checksum = row_checksum({columns})")
        self._connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        self._connection.execute("COMMIT")
        self.messages.append(
            f"{self.path}: a ledger of an older Hesse, without checksums; its {n_records} records are taken as they "
            "are, and have checksums from now on"
        )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # an error of this program, not of the file
        except sqlite3.DatabaseError as error:
            name = _error_name(error)
            if _is_damage(error):
                raise FileFormatError(
                    f"{self.path}: the ledger was damaged while it was in use ({error}). The same command reads what "
                    "is sound in it, and goes on."
                ) from error
            reason = next((text for code, text in _REASONS.items() if name.startswith(code)), str(error))
            raise WriteError(
                f"cannot use the ledger {self.path}: {reason} ({error}). What is in the ledger is safe; the same "
                "command continues."
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
        return [Attempt((row[0], row[1]), _names(row[2]), *row[3:]) for row in rows]

    def read(self, key: StructureKey, quantities: Sequence[str]) -> dict[str, Record]:
        """Read the records of one structure.

        Args:
            key: key of the structure.
            quantities: names of the quantities.

        Returns:
            The records of those that are there and sound, by name.
        """
        placeholders = ", ".join("?" * len(quantities))
        with self._translate_errors():
            rows = self._connection.execute(
                "SELECT quantity, suspect, payload, checksum FROM labels WHERE engine = ? AND structure = ? "
                f"AND geometry = ? AND quantity IN ({placeholders})",
                (self._engine, *key, *quantities),
            ).fetchall()
        return {
            quantity: Record(payload, suspect)
            for quantity, suspect, payload, checksum in rows
            if is_sound_row((self._engine, *key, quantity, suspect, payload), checksum)
        }

    def discard(self, key: StructureKey, quantities: Sequence[str]) -> None:
        """Remove records that cannot be used, so that the next campaign computes them.

        Args:
            key: key of the structure.
            quantities: names of the quantities.
        """
        with self._translate_errors():
            self._connection.executemany(
                "DELETE FROM labels WHERE engine = ? AND structure = ? AND geometry = ? AND quantity = ?",
                [(self._engine, *key, quantity) for quantity in quantities],
            )

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
        attempt_rows, label_rows = ([(*row, row_checksum(*row)) for row in rows] for rows in (attempt_rows, label_rows))
        with self._translate_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "DELETE FROM labels WHERE engine = ? AND structure = ? AND geometry = ? AND quantity = ?",
                    [row[:4] for row in label_rows],
                )
                self._insert_rows(label_rows, attempt_rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _lock_path(path: Path) -> Path:
    """Path of the lock of a ledger: beside the file itself, also if `path` is a link to it."""
    path = path.resolve()
    return path.with_name(f".{path.name}.lock")


def _refuse_links(path: Path) -> None:
    """Refuse links through which SQLite would write into a file that is not a ledger.

    A link to a ledger is followed: a campaign may keep its output on a shared disk and its ledger on a local one.
    """
    target = path.resolve()
    if path.is_symlink() and not (target.is_file() and target.stat().st_size):
        raise FileFormatError(
            f"{path}: a link to {target}, which is not a ledger. Remove the link, or choose another OUT."
        )
    for suffix in ("-wal", "-shm", "-journal"):
        beside = Path(f"{target}{suffix}")
        if beside.is_symlink():
            raise FileFormatError(f"{beside}: a link, where SQLite writes a file of its own. Remove it.")


def _names(text: str) -> tuple[str, ...]:
    """Names of quantities; none if the row of an older ledger, which has no checksum of its own time, is damaged."""
    try:
        names = json.loads(text)
    except ValueError:
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _error_name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """True if a file is damaged or not one of SQLite, not just busy, read-only or on a full disk."""
    name = _error_name(error)
    return name.startswith(_DAMAGED_FILE) or (name == "SQLITE_ERROR" and "malformed" in str(error))
