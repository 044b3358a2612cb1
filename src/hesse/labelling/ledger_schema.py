"""The tables of a ledger: their columns and versions, and the checksum that every row has of all its values."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3

__all__ = [
    "ATTEMPT_COLUMNS",
    "FORMAT_VERSION",
    "LABEL_COLUMNS",
    "SCHEMA",
    "WITHOUT_CHECKSUMS",
    "Row",
    "decode_text",
    "has_old_columns",
    "is_sound_row",
    "row_checksum",
]

FORMAT_VERSION, WITHOUT_CHECKSUMS = 3, 2
"""The version of the tables, and that of older ledgers whose rows have no checksums."""

_TABLES = """
CREATE TABLE IF NOT EXISTS engines (digest TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    engine TEXT NOT NULL,
    structure TEXT NOT NULL,
    geometry TEXT NOT NULL,
    quantity TEXT NOT NULL,
    suspect TEXT NOT NULL,
    payload BLOB NOT NULL,
    checksum BLOB
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
    checksum BLOB,
    PRIMARY KEY (engine, structure, geometry, asked)
) WITHOUT ROWID;
"""
SCHEMA = f"{_TABLES}PRAGMA user_version={FORMAT_VERSION};"
"""Statements that make an empty ledger."""
LABEL_COLUMNS = "engine, structure, geometry, quantity, suspect, payload"
ATTEMPT_COLUMNS = "engine, structure, geometry, asked, atoms, reason, seconds"

Row = tuple[object, ...]
"""The values of one row, without its checksum."""


def row_checksum(*values: object) -> bytes:
    """Checksum of one row.

    Args:
        *values: the values of its columns, in order: texts, bytes and numbers.

    Returns:
        16 bytes (BLAKE2b) that depend on every value and on the order.
    """
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, int | float):  # a column of real numbers returns 1.0 for 1
            value = repr(float(value))
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        digest.update(f"{type(value).__name__} {len(data)}\n".encode())
        digest.update(data)
    return digest.digest()


def is_sound_row(values: Row, checksum: object) -> bool:
    """Compare a row with its checksum.

    Args:
        values: the values of its columns.
        checksum: the checksum that was stored with it.

    Returns:
        True if they agree.
    """
    return isinstance(checksum, bytes) and hmac.compare_digest(checksum, row_checksum(*values))


def has_old_columns(connection: sqlite3.Connection) -> bool:
    """Check for the tables of a ledger before there were checksums.

    Args:
        connection: an open ledger.

    Returns:
        True if both tables have exactly the columns of that time.
    """
    columns = [
        [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in ("labels", "attempts")
    ]
    return columns == [LABEL_COLUMNS.split(", "), ATTEMPT_COLUMNS.split(", ")]


def decode_text(data: bytes) -> str:
    """Text of a column; bytes that are no text become replacement characters, so that the checksum differs.

    Args:
        data: the bytes of the column.

    Returns:
        The text.
    """
    return data.decode("utf-8", "replace")
