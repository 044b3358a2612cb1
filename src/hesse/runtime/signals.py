"""SIGINT (Ctrl-C) and SIGTERM (queueing systems) without loss of work.

Training defers the signal until the step is finished and the state saved (`deferred_signals`). A labeling campaign is
interrupted between two records (`stop_signals`). A program that waits for others forwards it (`forwarded_signals`).
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["StoppedError", "deferred_signals", "forwarded_signals", "stop_signals"]


@contextmanager
def _handled_by(react: Callable[[signal.Signals], None]) -> Iterator[Callable[[], None]]:
    """Context in which SIGINT and SIGTERM call `react` instead of ending the process (main thread only: no other may
    set handlers). Yields a function that restores the former handlers early."""
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # a handler that was not set by Python cannot be restored

    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda received, _: react(signal.Signals(received)))
        yield restore
    finally:
        restore()


@contextmanager
def deferred_signals() -> Iterator[list[signal.Signals]]:
    """Context in which SIGINT and SIGTERM are collected instead of ending the process (main thread only).

    Yields:
        The signals received so far; the caller checks this list after each step.
    """
    caught: list[signal.Signals] = []
    with _handled_by(caught.append):
        yield caught


@contextmanager
def forwarded_signals(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[signal.Signals]]:
    """Context in which SIGINT and SIGTERM are forwarded to other processes (main thread only).

    Args:
        processes: the processes; those that are added while the context lasts count too.

    Yields:
        The signals received so far.
    """
    caught: list[signal.Signals] = []

    def forward(number: signal.Signals) -> None:
        caught.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    with _handled_by(forward):
        yield caught


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

    def stop(number: signal.Signals) -> None:
        restore()
        raise StoppedError

    with _handled_by(stop) as restore:
        yield
