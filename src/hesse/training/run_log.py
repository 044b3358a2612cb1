"""The record of a run: JSON lines (always) and TensorBoard (on request). A resumed run continues the same record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hesse.runtime.filesystem import atomic_write_text
from hesse.runtime.imports import import_optional

__all__ = ["NullLogger", "RunLogger", "read_log"]


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`. A last line cut short by a kill is left out."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class RunLogger:
    """Rows `{"kind": "train" | "validation" | "note", "step": ..., ...}`, one JSON object a line."""

    def __init__(self, folder: Path, *, from_step: int, tensorboard: bool) -> None:
        """Open the record in `folder`, dropping rows later than `from_step` (they will be made again).

        Raises:
            MissingExtraError: TensorBoard was asked for and is not installed.
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
        """Add one row."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def message(self, step: int, text: str) -> None:
        """Add a row `{"kind": "note", "step": ..., "text": ...}`: what was decided or met on the way."""
        self._file.write(json.dumps({"kind": "note", "step": step, "text": text}) + "\n")

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class NullLogger:
    """What a process keeps that is not the one to keep the record."""

    def write(self, kind: str, step: int, **values: float) -> None:
        """Nothing."""

    def message(self, step: int, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
