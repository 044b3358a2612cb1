"""SIGINT (Ctrl-C) and SIGTERM (queueing systems) without loss of work.

Training defers the signal until the step is finished and the state saved (`deferred_signals`). A labeling campaign is
interrupted between two records (`stop_signals`). A program that waits for others forwards it (`forwarded_signals`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["StoppedError", "deferred_signals", "forwarded_signals", "stop_signals"]


@contextmanager
def _handled_by(react: Callable[[signal.Signals], None]) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Context in which SIGINT and SIGTERM call `react` instead of ending the process (main thread only: no other may
    set handlers). Yields a function that restores the former handlers early, and one that sets those of the context
    again."""
    before: dict[signal.Signals, Any] = {}

    def set_handlers() -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                former = signal.signal(number, lambda received, _: react(signal.Signals(received)))
                before.setdefault(number, former)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # a handler that was not set by Python cannot be restored

    try:
        set_handlers()
        yield restore, set_handlers
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


_SECONDS_TO_REPEAT = 0.01


@contextmanager
def stop_signals() -> Iterator[None]:
    """Context in which the first SIGINT or SIGTERM raises `StoppedError` (main thread only).

    A second signal has its usual effect. Python drops exceptions in callbacks of weak references and in `__del__`; a
    signal that arrives there is sent once more.

    Raises:
        StoppedError: a signal was received; raised by the signal handler at any point of the block.
    """
    received: list[signal.Signals] = []
    previous_hook = sys.unraisablehook

    def stop(number: signal.Signals) -> None:
        received.append(number)
        restore()
        raise StoppedError

    def repeat(dropped: Any) -> None:
        if dropped.exc_type is not StoppedError:
            previous_hook(dropped)
            return
        set_handlers()
        timer = threading.Timer(_SECONDS_TO_REPEAT, os.kill, (os.getpid(), received[-1]))
        timer.daemon = True
        timer.start()

    with _handled_by(stop) as (restore, set_handlers):
        sys.unraisablehook = repeat
        try:
            yield
        finally:
            sys.unraisablehook = previous_hook
