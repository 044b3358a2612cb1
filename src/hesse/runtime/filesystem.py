"""Checks of input and output paths, atomic writing, and locks.

Atomic writing means: write to a temporary file in the same folder, flush it to disk, rename it to the target.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from hesse.errors import FileFormatError, RequestError, WriteError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["atomic_write", "atomic_write_text", "check_input_file", "check_output_path", "lock_file", "write_rows"]

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""Errors of file systems that cannot lock (some clusters)."""


def check_input_file(path: str | Path, what: str = "file") -> None:
    """Check that an input file exists.

    Args:
        path: path of the file.
        what: kind of file expected, for the message.

    Raises:
        FileFormatError: there is no such file, or it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise FileFormatError(f"{path}: this is a folder, expected a {what}")
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such {what}")


def check_output_path(target: str | Path, *inputs: str | Path) -> None:
    """Check before a computation that its result can be written.

    Args:
        target: path of the file to write.
        inputs: files that must not be overwritten.

    Raises:
        RequestError: `target` is a folder, its folder is missing, or it is one of `inputs`.
    """
    target = Path(target)
    if target.is_dir():
        raise RequestError(f"{target}: this is a folder, expected the name of a file to write")
    if not target.absolute().parent.is_dir():
        raise RequestError(f"{target}: there is no folder {target.absolute().parent}. Create it first.")
    for source in map(Path, inputs):
        if target.exists() and source.exists() and target.samefile(source):
            raise RequestError(f"{target}: this is an input, and would be overwritten. Choose another name.")


@contextmanager
def atomic_write(target: str | Path) -> Iterator[Path]:
    """Context for writing a file completely or not at all.

    If the block raises, the temporary file is removed and an existing file at `target` is unchanged.

    Args:
        target: path of the file to write.

    Yields:
        A temporary path in the same folder; it replaces `target` when the block ends.

    Raises:
        WriteError: the disk is full, the folder is missing or not writable.
    """
    target = Path(target)
    if target.is_dir():
        raise WriteError(f"cannot write {target}: it is a folder")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        if not target.parent.is_dir():
            raise WriteError(f"cannot write {target}: there is no folder {target.parent}. Create it first.")
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise WriteError(
            f"cannot write {target}: {error.strerror or error}. An existing file is unchanged; "
            "free some space or choose another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(target: str | Path, text: str) -> None:
    """Write a text file (UTF-8) completely or not at all.

    Args:
        target: path of the file.
        text: its content.

    Raises:
        WriteError: see `atomic_write`.
    """
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_rows(target: str | Path, rows: Sequence[Mapping[str, object] | DataclassInstance]) -> None:
    """Write rows as JSON, as all commands do for `--json`: a list with one object per row.

    Args:
        target: path of the file.
        rows: mappings, or instances of dataclasses whose fields become the columns.

    Raises:
        WriteError: see `atomic_write`.
        ValueError: a number that is not finite, which JSON does not have.
    """
    objects = [row if isinstance(row, Mapping) else asdict(row) for row in rows]
    atomic_write_text(target, json.dumps(objects, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def lock_file(path: Path, busy: str) -> Iterator[None]:
    """Context in which other processes cannot take the same lock. The lock ends with the process in any case.

    On a file system that cannot lock the block runs without protection.

    Args:
        path: the lock: an empty file, created if missing. It must hold no data, and stays there afterwards.
        busy: the message if another process holds the lock.

    Raises:
        RequestError: another process holds the lock.
        WriteError: the folder is missing or not writable.
    """
    if not path.parent.is_dir():  # filelock would create it
        raise WriteError(f"cannot write in {path.parent}: there is no such folder. Create it first.")
    # Never a soft lock (a file that merely exists): it would outlive a process that is killed.
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(busy) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise WriteError(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once the folder itself is on disk (not every system allows this).
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
