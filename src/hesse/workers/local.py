"""Worker processes on this machine. When one dies, the first task it has not answered is the guilty one; the others it
held go back to the queue."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from hesse.errors import ExecutionError
from hesse.workers.outcome import TaskResult
from hesse.workers.process import WorkerProcess, serialize

__all__ = ["iter_local"]

_MAX_PENDING = 8
"""Tasks a worker holds at most: enough to hide the latency of the pipe behind tasks of a millisecond."""


def iter_local(
    make_worker: Callable[[Any], Any], spec: Any, tasks: Iterable[Any], *, workers: int, timeout: float | None
) -> Generator[TaskResult[Any], None, None]:
    """See `hesse.workers.run_tasks`."""
    queue = deque(enumerate(tasks))
    if not queue:
        return
    pool = _Pool(serialize((make_worker, spec)), queue, min(workers, len(queue)), timeout)
    try:
        yield from pool.results()
    finally:
        pool.close()


class _Worker:
    """One process, what it was given and has not answered."""

    def __init__(self, init_message: bytes) -> None:
        self.process = WorkerProcess(init_message)
        self.pipe = self.process.pipe
        self.pending: deque[tuple[int, Any]] = deque()
        self.ready = False
        self.busy_since = time.monotonic()

    def submit(self, tasks: list[tuple[int, Any]]) -> None:
        self.pending.extend(tasks)
        self.busy_since = time.monotonic()
        self.process.send(serialize(tasks))


class _Pool:
    def __init__(self, init_message: bytes, queue: deque[tuple[int, Any]], workers: int, timeout: float | None) -> None:
        self.init_message, self.queue, self.timeout = init_message, queue, timeout
        self.workers = [_Worker(init_message) for _ in range(workers)]

    def results(self) -> Iterator[TaskResult[Any]]:
        while self.queue or any(worker.pending for worker in self.workers):
            by_pipe = {worker.pipe: worker for worker in self.workers}
            for pipe in connection.wait(list(by_pipe), timeout=self._seconds_to_deadline()):
                yield from self._receive(by_pipe[pipe])  # type: ignore[index]
            if self.timeout is not None:
                yield from self._kill_overdue(self.timeout)

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()

    def _seconds_to_deadline(self) -> float | None:
        if self.timeout is None:
            return None
        deadlines = [worker.busy_since + self.timeout for worker in self.workers if worker.pending]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _receive(self, worker: _Worker) -> Iterator[TaskResult[Any]]:
        """All that the worker has sent; its last words when it is dead."""
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    worker.ready = True
                else:
                    worker.pending.popleft()
                    worker.busy_since = time.monotonic()
                    yield message
        except (EOFError, ConnectionError):
            yield from self._handle_exit(worker, worker.process.exit_description())
            return
        if worker.ready and not worker.pending and self.queue:
            # The last tasks are dealt out thinly, so that no worker holds many while others are idle.
            n_tasks = max(1, min(_MAX_PENDING, len(self.queue) // (2 * len(self.workers))))
            worker.submit([self.queue.popleft() for _ in range(n_tasks)])

    def _handle_exit(self, worker: _Worker, reason: str) -> Iterator[TaskResult[Any]]:
        worker.process.kill()
        self.workers.remove(worker)
        if not worker.pending:
            if not worker.ready:
                raise ExecutionError(f"a worker process could not start: {reason}")
        else:
            index, _ = worker.pending.popleft()
            self.queue.extendleft(reversed(worker.pending))
            yield TaskResult(index, None, reason, time.monotonic() - worker.busy_since)
        if self.queue:
            self.workers.append(_Worker(self.init_message))

    def _kill_overdue(self, timeout: float) -> Iterator[TaskResult[Any]]:
        for worker in list(self.workers):
            if worker.pending and time.monotonic() - worker.busy_since > timeout:
                worker.process.popen.kill()
                yield from self._handle_exit(worker, f"stopped after {timeout:g} s (timeout)")
