"""The record of a run: JSON lines (always) and TensorBoard (on request). A resumed run continues the same record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hesse.runtime.filesystem import atomic_write_text
from hesse.runtime.imports import import_optional

__all__ = ["NullLogger", "RunLogger", "read_log"]


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read the record of a run.

    Args:
        path: a `metrics.jsonl`.

    Returns:
        Its rows. An incomplete last line, which a killed process leaves, is left out.
    """
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class RunLogger:
    """Rows `{"kind": "train" | "validation" | "hessian" | "note", "step": ..., ...}`, one JSON object a line."""

    def __init__(self, folder: Path, *, from_step: int, tensorboard: bool) -> None:
        """Open the record in `folder`, and remove rows after `from_step`: these steps are done again.

        Raises:
            MissingExtraError: TensorBoard is requested and not installed.
        """
        self._board: Any = None
        if tensorboard:
            module = import_optional("torch.utils.tensorboard", extra="tensorboard", purpose="logging to TensorBoard")
            self._board = module.SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)
        path = folder / "metrics.jsonl"
        rows = [row for row in read_log(path) if row["step"] <= from_step] if path.exists() and from_step else []
        atomic_write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed in close)

    def write(self, kind: str, step: int, **values: float) -> None:
        """Add one row.

        Args:
            kind: "train", "validation", or "hessian" (errors of full Hessians).
            step: number of steps done.
            **values: the numbers of the row.
        """
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def message(self, step: int, text: str) -> None:
        """Add a row `{"kind": "note", "step": ..., "text": ...}` about a decision or an event.

        Args:
            step: number of the step, from 0.
            text: the message.
        """
        self._file.write(json.dumps({"kind": "note", "step": step, "text": text}) + "\n")

    def close(self) -> None:
        """Flush and close."""
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
