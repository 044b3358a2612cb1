"""The record of a run: JSON lines (always) and TensorBoard (on request). A resumed run continues the same record."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hesse.errors import FileFormatError, WriteError
from hesse.runtime.filesystem import atomic_write, atomic_write_text, free_name, open_without_links
from hesse.runtime.imports import import_optional

__all__ = ["NullLogger", "RunLogger", "last_training_terms", "read_log", "scan_log"]


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read the record of a run.

    Args:
        path: a `metrics.jsonl`.

    Returns:
        Its rows. An incomplete last line, which a killed process leaves, is left out.

    Raises:
        FileFormatError: the file cannot be read, or another line is damaged; the message has its number.
    """
    rows, damaged = scan_log(path)
    if damaged:
        raise FileFormatError(
            f"{path}: {_describe(damaged)} not a row of a record. Remove what is damaged, or continue the run: it "
            "keeps the file aside and goes on with the other rows."
        )
    return rows


def scan_log(path: str | Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Read what is sound in the record of a run.

    Args:
        path: a `metrics.jsonl`.

    Returns:
        Its rows, and the numbers (from 1) of damaged lines. An incomplete last line is neither.

    Raises:
        FileFormatError: the file cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path}: cannot read the record of a run ({error.strerror})") from error
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    *lines, last = content.split(b"\n")
    for number, line in enumerate([*lines, *([last] if last else [])], 1):
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and isinstance(row.get("kind"), str) and type(row.get("step")) is int:
            rows.append(row)
        elif number <= len(lines):
            damaged.append(number)
    return rows, damaged


def last_training_terms(path: Path, names: Iterable[str]) -> dict[str, float]:
    """Terms of the loss of the last training steps.

    Args:
        path: a `metrics.jsonl`.
        names: names of the terms.

    Returns:
        Mean of each over the last hundred steps that have it, by name; terms that no step has are left out.
    """
    rows = [row for row in scan_log(path)[0] if row["kind"] == "train"] if path.exists() else []
    values = {name: [row[name] for row in rows if isinstance(row.get(name), float)][-100:] for name in names}
    return {name: sum(terms) / len(terms) for name, terms in values.items() if terms}


def _describe(lines: list[int]) -> str:
    """ "line 3 is", "lines 3, 4 and 7 more are"."""
    shown = ", ".join(map(str, lines[:3])) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")
    return f"line {shown} is" if len(lines) == 1 else f"lines {shown} are"


class RunLogger:
    """Rows `{"kind": "train" | "validation" | "hessian" | "note", "step": ..., ...}`, one JSON object a line."""

    def __init__(self, folder: Path, *, from_step: int, tensorboard: bool) -> None:
        """Open the record in `folder`, and remove rows after `from_step`: these steps are done again.

        Raises:
            MissingExtraError: TensorBoard is requested and not installed.
            WriteError: the record cannot be written.
        """
        self._board: Any = None
        if tensorboard:
            module = import_optional("torch.utils.tensorboard", extra="tensorboard", purpose="logging to TensorBoard")
            self._board = module.SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)
        self._path = folder / "metrics.jsonl"
        rows = self._previous_rows(from_step) if from_step else []
        atomic_write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = open_without_links(self._path, "a")

    def _previous_rows(self, from_step: int) -> list[dict[str, Any]]:
        """Rows of the steps that are not done again. A damaged file is kept aside."""
        if not self._path.exists():
            return []
        rows, damaged = scan_log(self._path)
        if damaged:
            aside = free_name(self._path, "damaged")
            with atomic_write(aside) as temporary:
                shutil.copyfile(self._path, temporary)
            print(
                f"{self._path}: {_describe(damaged)} damaged, and left out of the record, which goes on without. The "
                f"damaged file is kept as {aside}",
                file=sys.stderr,
            )
        return [row for row in rows if row["step"] <= from_step]

    def _add(self, row: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise WriteError(
                f"cannot write {self._path}: {error.strerror}. The last checkpoint is valid; free some space, and the "
                "same command continues the run."
            ) from error

    def write(self, kind: str, step: int, **values: float) -> None:
        """Add one row.

        Args:
            kind: "train", "validation", or "hessian" (errors of full Hessians).
            step: number of steps done.
            **values: the numbers of the row.
        """
        self._add({"kind": kind, "step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def message(self, step: int, text: str) -> None:
        """Add a row `{"kind": "note", "step": ..., "text": ...}` about a decision or an event.

        Args:
            step: number of the step, from 0.
            text: the message.
        """
        self._add({"kind": "note", "step": step, "text": text})

    def close(self) -> None:
        """Flush and close."""
        with contextlib.suppress(OSError):  # a full disk was told when the row was written
            self._file.close()
        if self._board is not None:
            self._board.close()


class NullLogger:
    """Logger of the processes that do not write the record: ignores all rows."""

    def write(self, kind: str, step: int, **values: float) -> None:
        """See `RunLogger.write`."""

    def message(self, step: int, text: str) -> None:
        """See `RunLogger.message`."""

    def close(self) -> None:
        """See `RunLogger.close`."""
