"""Checks of input and output paths, atomic writing, and locks.

Atomic writing means: write to a temporary file in the same folder, flush it to disk, rename it to the target.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hesse.errors import FileFormatError, RequestError, WriteError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "atomic_write",
    "atomic_write_text",
    "check_input_file",
    "check_new_file",
    "check_output_path",
    "check_picture_path",
    "free_name",
    "lock_file",
    "open_without_links",
    "picture_suffix",
    "remove_abandoned",
    "write_rows",
]

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""Errors of file systems that cannot lock (some clusters)."""
_PICTURES = (".png", ".svg")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


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


def check_new_file(target: str | Path, *, overwrite: bool) -> None:
    """Check that no file is replaced unasked.

    Args:
        target: path of the file to write.
        overwrite: replace it if it exists.

    Raises:
        RequestError: the file exists, and may not be replaced.
    """
    if Path(target).exists() and not overwrite:
        raise RequestError(f"{target} exists already: choose another name, or give --overwrite to replace it")


def picture_suffix(path: str | Path) -> str:
    """The format of a picture, by the suffix of its file.

    Args:
        path: the picture.

    Returns:
        ".png" or ".svg".

    Raises:
        FileFormatError: another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _PICTURES:
        raise FileFormatError(f"{path}: pictures are written as .png or .svg; choose a name that ends so")
    return suffix


def check_picture_path(target: str | Path, *inputs: str | Path) -> None:
    """Check before a computation that a picture of its result can be written.

    Args:
        target: path of the picture.
        inputs: files that must not be overwritten.

    Raises:
        FileFormatError: a suffix other than .png and .svg.
        RequestError: see `check_output_path`.
    """
    picture_suffix(target)
    check_output_path(target, *inputs)


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
    if target.exists() and not target.is_file():
        raise WriteError(f"cannot write {target}: it is a device or a pipe, not a file. Choose another name.")
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
        raise WriteError(_write_failure(target, temporary, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_failure(target: Path, temporary: Path, error: OSError) -> str:
    """Message for a failed write, which names another file if that is the one that failed."""
    files = {str(target), str(temporary), str(target.parent), None}
    other = "" if error.filename in files else f"{error.filename}: "
    if error.errno in _FORBIDDEN:
        remedy = f"choose a folder in which you may write (this one is {target.absolute().parent})."
    elif error.errno in _FULL:
        remedy = "free some space or choose another place."
    else:
        remedy = "choose another place, or free some space if the disk is full."
    return f"cannot write {target}: {other}{error.strerror or error}. An existing file is unchanged; {remedy}"


def remove_abandoned(folder: Path, names: Collection[str]) -> None:
    """Remove the temporary files that killed processes have left behind while they wrote certain files.

    Only call this while no other process can be writing these files: while their lock is held.

    Args:
        folder: the folder of the files.
        names: names of the files; temporary files of others are left alone.
    """
    for path in folder.iterdir():
        match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.part(\.[^.]+)?", path.name)
        if match and match[1] in names and (match[2] or "") == Path(match[1]).suffix and not path.is_symlink():
            path.unlink(missing_ok=True)


def free_name(path: Path, word: str) -> Path:
    """A free name beside a file: `NAME.WORD`, `NAME.WORD-2`, ...

    Args:
        path: the file.
        word: the word to add.

    Returns:
        A path that does not exist.
    """
    candidate, number = Path(f"{path}.{word}"), 1
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = Path(f"{path}.{word}-{number}")
    return candidate


def open_without_links(path: str | Path, mode: str) -> IO[Any]:
    """Open a file for writing, but never through a symbolic link, which would change a file elsewhere.

    Args:
        path: the file.
        mode: as in `open`; text is UTF-8 and written line by line.

    Returns:
        The open file.

    Raises:
        WriteError: `path` is a link, or cannot be written.
    """
    text = "b" not in mode

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    try:
        return open(path, mode, 1 if text else -1, encoding="utf-8" if text else None, opener=opener)
    except OSError as error:
        reason = "it is a link to another file; remove it" if error.errno == errno.ELOOP else error.strerror
        raise WriteError(f"cannot write {path}: {reason}") from error


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
        path: the lock: a file, created empty if missing. It is never written to, and stays there afterwards.
        busy: the message if another process holds the lock.

    Raises:
        RequestError: another process holds the lock.
        WriteError: the folder is missing or not writable, or `path` is a link or a folder.
    """
    if not path.parent.is_dir():
        raise WriteError(f"cannot write in {path.parent}: there is no such folder. Create it first.")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise WriteError(f"cannot lock {path}: it is a link to another file. Remove it.") from error
        raise WriteError(f"cannot write in {path.parent}: {error.strerror} ({path.name})") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise WriteError(f"cannot lock {path}: it is not a file. Remove it.")
        try:
            # Never a soft lock (a file that merely exists): it would outlive a process that is killed.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RequestError(busy) from None
            if error.errno not in _NO_LOCKS:
                raise WriteError(f"cannot lock {path}: {error.strerror}") from error
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was forked meanwhile has the same open file
        os.close(handle)


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
