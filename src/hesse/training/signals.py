"""Being asked to stop: finish the step, save the state, then leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["deferred_signals"]


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
