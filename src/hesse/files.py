"""Writing files so that nothing is ever half written: beside the target, flushed to disk, then renamed over it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hesse.errors import WriteError

__all__ = ["write_aside", "write_text"]


@contextmanager
def write_aside(target: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`; when the block ends well, it replaces `target` in one step.

    When the block fails the temporary file is removed and whatever stood at `target` is unharmed.

    Raises:
        WriteError: the disk is full, the folder is missing or not writable.
    """
    target = Path(target)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        if not target.parent.is_dir():
            raise WriteError(f"cannot write {target}: there is no folder {target.parent}. Create it first.")
        yield aside
        with open(aside, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(aside, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise WriteError(
            f"cannot write {target}: {error.strerror or error}. What was there before is unharmed; "
            "free some space or choose another place."
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> None:
    """Write a text file whole or not at all. Raises WriteError."""
    with write_aside(target) as aside:
        aside.write_text(text, encoding="utf-8")


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
