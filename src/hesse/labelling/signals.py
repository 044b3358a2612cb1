"""Ctrl-C and the queue's SIGTERM end a campaign between two records."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StoppedError", "stop_signals"]


class StoppedError(BaseException):
    """SIGINT or SIGTERM came. No `Exception`: nobody on the way may take it for a failure of one structure."""


@contextmanager
def stop_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise StoppedError, once; a second one acts as usual. Signals reach only the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise StoppedError

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        restore()
