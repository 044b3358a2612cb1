"""The folder of a training run, in which one job works at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hesse.errors import WriteError
from hesse.runtime.filesystem import lock_file, remove_abandoned
from hesse.training.distributed import Communicator

__all__ = ["open_run_folder"]

_RUN_FILES = (
    "checkpoint.safetensors",
    "metrics.jsonl",
    "config.yaml",
    "split.json",
    "data.json",
    *(
        f"{stem}.{ending}"
        for stem in ("model", "last")
        for ending in ("hesse", "safetensors", "pt", "model", "nequip.zip", "pth", "pth.tar")
    ),
)
"""Files that a run writes: half-written ones of a killed process are removed when the folder is locked again."""


@contextmanager
def open_run_folder(folder: Path, communicator: Communicator) -> Iterator[None]:
    """Context in which no other job works in the folder of a run. It creates the folder if necessary, and the first
    process locks it before anything in it is written.

    Args:
        folder: the folder.
        communicator: the processes that train together.

    Raises:
        RequestError: another job works in the folder.
        WriteError: it cannot be created or written.
    """
    with ExitStack() as stack:
        communicator.run_on_rank_zero(lambda: _lock_folder(folder, stack))
        yield


def _lock_folder(folder: Path, stack: ExitStack) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot create the run folder {folder}: {error.strerror}") from error
    busy = f"another process is working in {folder}: wait for it, stop it, or use another folder"
    stack.enter_context(lock_file(folder / ".lock", busy))
    remove_abandoned(folder, _RUN_FILES)
