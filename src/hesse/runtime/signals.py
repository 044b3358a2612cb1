"""Being asked to stop: finish the step, save the state, then leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StoppedError", "deferred_signals", "stop_signals"]


@contextmanager
def deferred_signals() -> Iterator[list[signal.Signals]]:
    """Collects SIGINT and SIGTERM instead of dying of them, so that a step is finished and the state saved."""
    caught: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may set handlers
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous_handlers = [signal.signal(number, lambda n, _: caught.append(signal.Signals(n))) for number in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, previous_handlers, strict=True):
            signal.signal(number, handler)


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


# MERGED DOCSTRING (fold into the module docstring): """Ctrl-C and the queue's SIGTERM end a campaign between two records."""
