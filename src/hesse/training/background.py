"""One piece of work beside the main thread, whose result or error reaches whoever asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["BackgroundTask"]

T = TypeVar("T")


class BackgroundTask(Generic[T]):
    """Work that runs in a thread of its own from the moment this is made.

    Args:
        work: is given a question, "shall I stop?", to be asked from time to time; where the answer is yes it may
            return None.
        name: of the thread.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], T | None], name: str) -> None:
        self._stop = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

        def run_work() -> None:
            try:
                self._result = work(self._stop.is_set)
            except BaseException as error:
                self._error = error  # raised where the result is asked for

        # A daemon: a process that ends otherwise than through `stop` does not wait for it.
        self._thread = threading.Thread(target=run_work, name=name, daemon=True)
        self._thread.start()

    def result(self) -> T:
        """What the work returned, waited for; what it raised is raised here."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """End the work, and wait until it has ended; its result and its error are dropped."""
        self._stop.set()
        self._thread.join()
