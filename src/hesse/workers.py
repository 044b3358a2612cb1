"""Work spread over processes that may die: a crash costs the task that caused it and nothing else.

Workers are fresh interpreters (no fork, no re-import of the caller's script) that run one thread each, take tasks one
after another through a pipe and answer each before the next. When a worker dies, the first task it has not answered is
the guilty one; the others it held go back to the queue. When the parent dies, its workers see the pipe close and end.

Tasks and answers travel by pickle between processes of one program; nothing is read from disk that way.
POSIX only: the pipe is inherited.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from hesse.errors import ConfigError, HesseError, WorkError

__all__ = ["Outcome", "run_tasks"]

Spec = TypeVar("Spec")
Task = TypeVar("Task")
Answer = TypeVar("Answer")

_CHUNK = 8
"""Tasks a worker holds at most: enough to hide the latency of the pipe behind tasks of a millisecond."""

_THREAD_COUNTS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in _THREAD_COUNTS}


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


def run_tasks(
    set_up: Callable[[Spec], Callable[[Task], Answer]],
    spec: Spec,
    tasks: Iterable[Task],
    *,
    workers: int,
    timeout: float | None = None,
) -> Generator[Outcome[Answer], None, None]:
    """Outcomes of all tasks, as they come.

    Args:
        set_up: a function of a module; called once per worker with `spec`, it returns what answers tasks.
        workers: processes; 0 works in this one (no protection against crashes, no timeout).
        timeout: seconds one task may take before its worker is killed.

    Raises:
        HesseError: whatever `set_up` raised; the request is wrong for all tasks.
        WorkError: workers cannot start, or die before their first task.
    """
    if workers < 0 or (timeout is not None and not timeout > 0):
        raise ConfigError(f"expected workers >= 0 and a positive timeout, got {workers} and {timeout}")
    queue = deque(enumerate(tasks))
    if not queue:
        return
    if workers == 0:
        work = set_up(spec)
        for index, task in queue:
            yield _attempt(work, index, task)
        return
    pool = _Pool(set_up, spec, queue, min(workers, len(queue)), timeout)
    try:
        yield from pool.outcomes()
    finally:
        pool.close()


def _attempt(work: Callable[[Any], Any], index: int, task: Any) -> Outcome[Any]:
    start = time.perf_counter()
    try:
        answer, reason = work(task), ""
    except HesseError as error:
        answer, reason = None, f"{type(error).__name__}: {error}"
    except Exception as error:
        answer, reason = None, f"unexpected {type(error).__name__}: {error}"
    return Outcome(index, answer, reason, time.perf_counter() - start)


class _Worker:
    """One process and what it was given and has not answered."""

    def __init__(self, set_up: Callable[[Any], Any], spec: Any) -> None:
        ours, theirs = multiprocessing.Pipe()
        code = (
            "import sys; sys.path[:] = __import__('ast').literal_eval(sys.argv[2]); from hesse.workers import serve; "
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + "serve(int(sys.argv[1]))", str(theirs.fileno()), repr(sys.path)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # results are the parent's; engines like to talk
            env={**os.environ, **_ONE_THREAD},
            process_group=0,  # a Ctrl-C in the terminal reaches the parent only
        )
        theirs.close()
        self.pipe = ours
        self.held: deque[tuple[int, Any]] = deque()
        self.ready = False
        self.since = time.monotonic()
        with contextlib.suppress(OSError):  # it may have died already; the pipe's end tells
            self.pipe.send((set_up, spec))

    def give(self, tasks: list[tuple[int, Any]]) -> None:
        self.held.extend(tasks)
        self.since = time.monotonic()
        with contextlib.suppress(OSError):
            self.pipe.send(tasks)

    def end(self) -> None:
        self.pipe.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class _Pool:
    def __init__(
        self,
        set_up: Callable[[Any], Any],
        spec: Any,
        queue: deque[tuple[int, Any]],
        workers: int,
        timeout: float | None,
    ) -> None:
        self.set_up, self.spec, self.queue, self.timeout = set_up, spec, queue, timeout
        self.workers = [_Worker(set_up, spec) for _ in range(workers)]

    def outcomes(self) -> Iterator[Outcome[Any]]:
        while self.queue or any(worker.held for worker in self.workers):
            by_pipe = {worker.pipe: worker for worker in self.workers}
            for pipe in connection.wait(list(by_pipe), timeout=self._patience()):
                yield from self._read(by_pipe[pipe])  # type: ignore[index]
            if self.timeout is not None:
                yield from self._stop_the_slow(self.timeout)

    def close(self) -> None:
        for worker in self.workers:
            worker.end()

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
            yield from self._bury(worker, _cause_of_death(worker.process))
            return
        if worker.ready and not worker.held and self.queue:
            # The last tasks are dealt out thinly, so that no worker holds many while others are idle.
            share = max(1, min(_CHUNK, len(self.queue) // (2 * len(self.workers))))
            worker.give([self.queue.popleft() for _ in range(share)])

    def _bury(self, worker: _Worker, reason: str) -> Iterator[Outcome[Any]]:
        worker.end()
        self.workers.remove(worker)
        if not worker.held:
            if not worker.ready:
                raise WorkError(f"a worker process could not start: {reason}")
        else:
            index, _ = worker.held.popleft()
            self.queue.extendleft(reversed(worker.held))
            yield Outcome(index, None, reason, time.monotonic() - worker.since)
        if self.queue:
            self.workers.append(_Worker(self.set_up, self.spec))

    def _stop_the_slow(self, timeout: float) -> Iterator[Outcome[Any]]:
        for worker in list(self.workers):
            if worker.held and time.monotonic() - worker.since > timeout:
                worker.process.kill()
                yield from self._bury(worker, f"stopped after {timeout:g} s (timeout)")


def _cause_of_death(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        return "the worker process stopped answering"
    if code < 0:
        return f"the worker process was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"the worker process ended with exit code {code}"


def serve(descriptor: int) -> None:
    """What a worker process runs: set up once, then answer tasks until the parent goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's business
    pipe: connection.Connection = connection.Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        set_up, spec = pipe.recv()
        try:
            work = set_up(spec)
        except HesseError as error:
            pipe.send(error)
            return
        except Exception as error:
            pipe.send(WorkError(f"a worker could not be set up: {type(error).__name__}: {error}"))
            return
        pipe.send(None)
        while True:
            for index, task in pipe.recv():
                pipe.send(_attempt(work, index, task))
