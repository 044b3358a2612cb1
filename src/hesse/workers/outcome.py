"""What becomes of a task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hesse.errors import HesseError

__all__ = ["TaskResult", "run_task"]

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class TaskResult(Generic[Value]):
    """What became of task `index`: an answer, or the reason why there is none, and the seconds it took."""

    index: int
    value: Value | None
    error: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether there is no answer."""
        return bool(self.error)


def run_task(worker: Callable[[Any], Any], index: int, task: Any) -> TaskResult[Any]:
    """`work(task)`, whatever comes of it."""
    start = time.perf_counter()
    try:
        value, message = worker(task), ""
    except HesseError as error:
        value, message = None, f"{type(error).__name__}: {error}"
    except Exception as error:
        value, message = None, f"unexpected {type(error).__name__}: {error}"
    return TaskResult(index, value, message, time.perf_counter() - start)
