"""Files: asked for before the work, and written so that nothing is ever half written (beside the target, flushed to
disk, then renamed over it)."""

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
    """Raise FileFormatError unless `path` is a file. `what`: the kind of file expected, for the message."""
    path = Path(path)
    if path.is_dir():
        raise FileFormatError(f"{path}: this is a folder, expected a {what}")
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such {what}")


def check_output_path(target: str | Path, *inputs: str | Path) -> None:
    """Say before the work, not after it, that its result could not be written.

    Raises:
        RequestError: `target` is a folder, its folder is missing, or it is one of `inputs`, which would be lost.
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
    """Yields a temporary path beside `target`; when the block ends well, it replaces `target` in one step.

    When the block fails the temporary file is removed and whatever stood at `target` is unharmed.

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
            f"cannot write {target}: {error.strerror or error}. What was there before is unharmed; "
            "free some space or choose another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(target: str | Path, text: str) -> None:
    """Write a text file whole or not at all. Raises WriteError."""
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that this one works in. The lock dies with the process, however it ends.

    Raises:
        RequestError: another process is at work there.
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
                f"another process is at work in {folder}: wait for it, stop it, or use another folder"
            ) from None
        except OSError:
            pass  # a file system without locks (some clusters): no guard there, but no obstacle either
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
