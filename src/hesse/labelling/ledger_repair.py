"""Rescue of damaged ledgers: a scan that passes over what cannot be read.

A row whose checksum differs is never used: its quantity counts as missing, so that it is computed again. A file that
SQLite cannot follow any more is read row by row, if necessary with the first page of a new ledger in place of its own;
the rows that are sound are all that is taken from it.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from hesse.labelling.ledger_schema import (
    ATTEMPT_COLUMNS,
    LABEL_COLUMNS,
    SCHEMA,
    Row,
    decode_text,
    has_old_columns,
    is_sound_row,
    row_checksum,
)
from hesse.runtime.filesystem import atomic_write

__all__ = ["read_attempt_rows", "read_label_rows", "salvage", "write_rebuilt"]

_N_LABEL, _N_ATTEMPT = LABEL_COLUMNS.count(",") + 1, ATTEMPT_COLUMNS.count(",") + 1

_DAMAGE = (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError)
"""Exceptions that reading a damaged file raises."""
_SMALLEST_ROW = 64
"""Bytes that a row of labels takes at least (its keys are 32 digits each): bounds the number of rows of a file."""


def read_label_rows(connection: sqlite3.Connection, max_rows: int) -> Iterator[tuple[Row, object]]:
    """Read all rows of labels that can be read, from the table itself and not from its index.

    Args:
        connection: an open ledger.
        max_rows: more rows than the file can have; ends the search behind damaged pages.

    Yields:
        The values of each row, and its checksum.
    """
    checksum = "NULL" if has_old_columns(connection) else "checksum"
    query = f"SELECT rowid, {LABEL_COLUMNS}, {checksum} FROM labels NOT INDEXED WHERE rowid > ? ORDER BY rowid"
    last = failures = 0
    while failures <= max_rows:
        try:
            for rowid, *values, stored in connection.execute(query, (last,)):
                if rowid > last:  # otherwise the order itself is damaged, and the search must still end
                    last, failures = rowid, 0
                yield tuple(values), stored
            return
        except _DAMAGE:
            last, failures = last + 1, failures + 1


def read_attempt_rows(connection: sqlite3.Connection) -> Iterator[tuple[Row, object]]:
    """Read the rows of attempts before the first page that cannot be read, and those after the last one.

    Args:
        connection: an open ledger.

    Yields:
        The values of each row, and its checksum; a row may occur twice.
    """
    keys = "engine, structure, geometry, asked"
    checksum = "NULL" if has_old_columns(connection) else "checksum"
    for order in (keys, keys.replace(",", " DESC,") + " DESC"):
        try:
            for *values, stored in connection.execute(
                f"SELECT {ATTEMPT_COLUMNS}, {checksum} FROM attempts ORDER BY {order}"
            ):
                yield tuple(values), stored
            return
        except _DAMAGE:
            continue


def salvage(path: Path) -> tuple[list[Row], list[Row]] | None:
    """Read the sound rows of a ledger that SQLite calls damaged. The file is not changed.

    Args:
        path: the file.

    Returns:
        The rows of labels and of attempts, with their checksums as the last value; None if the file shows no sign of
        ever having been a ledger. Rows of a ledger without checksums are taken as they are.
    """
    content = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.sqlite"
        template = _template(Path(folder) / "template.sqlite")
        best: tuple[list[Row], list[Row]] | None = None
        # As it is; with the write-ahead log; with a new first page (header and schema are the same in all ledgers).
        for first_page in (b"", template):
            copy.write_bytes(_with_first_page(content, first_page))
            log, log_copy = Path(f"{path}-wal"), Path(f"{copy}-wal")
            if log.is_file() and not log.is_symlink():
                log_copy.write_bytes(log.read_bytes())
            rows = _sound_rows(copy)
            if rows is not None and (best is None or len(rows[0]) > len(best[0])):
                best = rows
            for leftover in Path(folder).glob("copy.sqlite*"):
                leftover.unlink()
    known = b"CREATE TABLE labels" in content[: len(template)]
    if best is None or not any(best):
        return ([], []) if known else None
    return best


def _with_first_page(content: bytes, first_page: bytes) -> bytes:
    """A database with another first page, whose header has the number of pages of this one (bytes 28 to 31)."""
    if not first_page:
        return content
    n_pages = len(content) // len(first_page)
    return first_page[:28] + n_pages.to_bytes(4, "big") + first_page[32:] + content[len(first_page) :]


def _sound_rows(path: Path) -> tuple[list[Row], list[Row]] | None:
    with suppress(*_DAMAGE), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = decode_text
        connection.execute("PRAGMA query_only=1")
        max_rows = path.stat().st_size // _SMALLEST_ROW + 1
        old = has_old_columns(connection)
        rows = read_label_rows(connection, max_rows), read_attempt_rows(connection)
        labels, attempts = ([(*r, row_checksum(*r)) for r, stored in t if old or is_sound_row(r, stored)] for t in rows)
        return labels, attempts
    return None


def _template(path: Path) -> bytes:
    """The first page of an empty ledger."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    return path.read_bytes()[:size]


def write_rebuilt(path: Path, labels: list[Row], attempts: list[Row]) -> None:
    """Write a new ledger with given rows, completely or not at all.

    Args:
        path: the file; replaced if it exists.
        labels: rows of labels with their checksums.
        attempts: rows of attempts with their checksums.

    Raises:
        WriteError: the file could not be written.
    """
    with atomic_write(path) as temporary, closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        connection.executemany(f"INSERT OR REPLACE INTO labels VALUES ({_marks(_N_LABEL)})", labels)
        connection.executemany(f"INSERT OR REPLACE INTO attempts VALUES ({_marks(_N_ATTEMPT)})", attempts)
        connection.execute("COMMIT")


def _marks(columns: int) -> str:
    return ", ".join("?" * (columns + 1))
