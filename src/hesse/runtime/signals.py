"""SIGINT (Ctrl-C) and SIGTERM (queueing systems) without loss of work.

Training defers the signal until the step is finished and the state saved (`deferred_signals`). A labeling campaign is
interrupted between two records (`stop_signals`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StoppedError", "deferred_signals", "stop_signals"]


@contextmanager
def deferred_signals() -> Iterator[list[signal.Signals]]:
    """Context in which SIGINT and SIGTERM are collected instead of ending the process (main thread only).

    Yields:
        The signals received so far; the caller checks this list after each step.
    """
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
    """SIGINT or SIGTERM was received.

    Not a subclass of `Exception`: code that records the failure of a single structure must not catch it.
    """


@contextmanager
def stop_signals() -> Iterator[None]:
    """Context in which the first SIGINT or SIGTERM raises `StoppedError` (main thread only).

    A second signal has its usual effect.

    Raises:
        StoppedError: a signal was received; raised by the signal handler at any point of the block.
    """
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
