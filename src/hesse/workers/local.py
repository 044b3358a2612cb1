"""Worker processes on this machine. When one dies, the first task it has not answered is the guilty one; the others it
held go back to the queue."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from hesse.errors import WorkError
from hesse.workers.outcome import Outcome
from hesse.workers.process import WorkerProcess, pickled

__all__ = ["local_outcomes"]

_CHUNK = 8
"""Tasks a worker holds at most: enough to hide the latency of the pipe behind tasks of a millisecond."""


def local_outcomes(
    set_up: Callable[[Any], Any], spec: Any, tasks: Iterable[Any], *, workers: int, timeout: float | None
) -> Generator[Outcome[Any], None, None]:
    """See `hesse.workers.run_tasks`."""
    queue = deque(enumerate(tasks))
    if not queue:
        return
    pool = _Pool(pickled((set_up, spec)), queue, min(workers, len(queue)), timeout)
    try:
        yield from pool.outcomes()
    finally:
        pool.close()


class _Worker:
    """One process, what it was given and has not answered."""

    def __init__(self, opening: bytes) -> None:
        self.process = WorkerProcess(opening)
        self.pipe = self.process.pipe
        self.held: deque[tuple[int, Any]] = deque()
        self.ready = False
        self.since = time.monotonic()

    def give(self, tasks: list[tuple[int, Any]]) -> None:
        self.held.extend(tasks)
        self.since = time.monotonic()
        self.process.send(pickled(tasks))


class _Pool:
    def __init__(self, opening: bytes, queue: deque[tuple[int, Any]], workers: int, timeout: float | None) -> None:
        self.opening, self.queue, self.timeout = opening, queue, timeout
        self.workers = [_Worker(opening) for _ in range(workers)]

    def outcomes(self) -> Iterator[Outcome[Any]]:
        while self.queue or any(worker.held for worker in self.workers):
            by_pipe = {worker.pipe: worker for worker in self.workers}
            for pipe in connection.wait(list(by_pipe), timeout=self._patience()):
                yield from self._read(by_pipe[pipe])  # type: ignore[index]
            if self.timeout is not None:
                yield from self._stop_the_slow(self.timeout)

    def close(self) -> None:
        for worker in self.workers:
            worker.process.end()

    def _patience(self) -> float | None:
        if self.timeout is None:
            return None
        busy = [worker.since + self.timeout for worker in self.workers if worker.held]
        return max(0.0, min(busy) - time.monotonic()) if busy else None

    def _read(self, worker: _Worker) -> Iterator[Outcome[Any]]:
        """All that the worker has sent; its last words when it is dead."""
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    worker.ready = True
                else:
                    worker.held.popleft()
                    worker.since = time.monotonic()
                    yield message
        except (EOFError, ConnectionError):
            yield from self._bury(worker, worker.process.cause_of_death())
            return
        if worker.ready and not worker.held and self.queue:
            # The last tasks are dealt out thinly, so that no worker holds many while others are idle.
            share = max(1, min(_CHUNK, len(self.queue) // (2 * len(self.workers))))
            worker.give([self.queue.popleft() for _ in range(share)])

    def _bury(self, worker: _Worker, reason: str) -> Iterator[Outcome[Any]]:
        worker.process.end()
        self.workers.remove(worker)
        if not worker.held:
            if not worker.ready:
                raise WorkError(f"a worker process could not start: {reason}")
        else:
            index, _ = worker.held.popleft()
            self.queue.extendleft(reversed(worker.held))
            yield Outcome(index, None, reason, time.monotonic() - worker.since)
        if self.queue:
            self.workers.append(_Worker(self.opening))

    def _stop_the_slow(self, timeout: float) -> Iterator[Outcome[Any]]:
        for worker in list(self.workers):
            if worker.held and time.monotonic() - worker.since > timeout:
                worker.process.process.kill()
                yield from self._bury(worker, f"stopped after {timeout:g} s (timeout)")
