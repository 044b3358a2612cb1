"""What becomes of a task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hesse.errors import HesseError

__all__ = ["Outcome", "attempt"]

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Answer]):
    """What became of task `index`: an answer, or the reason why there is none, and the seconds it took."""

    index: int
    answer: Answer | None
    reason: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether there is no answer."""
        return bool(self.reason)


def attempt(work: Callable[[Any], Any], index: int, task: Any) -> Outcome[Any]:
    """`work(task)`, whatever comes of it."""
    start = time.perf_counter()
    try:
        answer, reason = work(task), ""
    except HesseError as error:
        answer, reason = None, f"{type(error).__name__}: {error}"
    except Exception as error:
        answer, reason = None, f"unexpected {type(error).__name__}: {error}"
    return Outcome(index, answer, reason, time.perf_counter() - start)
