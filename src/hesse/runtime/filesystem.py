"""Checks of input and output paths, atomic writing, and a folder lock.

Atomic writing means: write to a temporary file in the same folder, flush it to disk, rename it to the target.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hesse.errors import FileFormatError, RequestError, WriteError

__all__ = ["atomic_write", "atomic_write_text", "check_input_file", "check_output_path", "lock_folder"]


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


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Context in which other processes cannot lock the same folder. The lock ends with the process in any case.

    Args:
        folder: existing folder; a file `.lock` is created in it.

    Raises:
        RequestError: another process holds the lock.
        WriteError: the folder is not writable.
    """
    try:
        handle = open(folder / ".lock", "w")  # noqa: SIM115 (closed below; the lock lives as long as it)
    except OSError as error:
        raise WriteError(f"cannot write in {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                f"another process is working in {folder}: wait for it, stop it, or use another folder"
            ) from None
        except OSError:
            pass  # a file system without locks (some clusters): continue without protection
        yield
    finally:
        handle.close()


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
