"""What becomes of a task."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from hesse.errors import ExecutionError, HesseError

__all__ = ["TaskResult", "WorkerProcess", "exit_with_parent", "iter_local", "run_task", "serialize", "worker_main"]

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class TaskResult(Generic[Value]):
    """What became of task `index`: an answer, or the reason why there is none, and the seconds it took."""

    index: int
    value: Value | None
    error: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether there is no answer."""
        return bool(self.error)


def run_task(worker: Callable[[Any], Any], index: int, task: Any) -> TaskResult[Any]:
    """`work(task)`, whatever comes of it."""
    start = time.perf_counter()
    try:
        value, message = worker(task), ""
    except HesseError as error:
        value, message = None, f"{type(error).__name__}: {error}"
    except Exception as error:
        value, message = None, f"unexpected {type(error).__name__}: {error}"
    return TaskResult(index, value, message, time.perf_counter() - start)


_THREADED_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
_ONE_THREAD_ENVIRONMENT = {f"{library}_NUM_THREADS": "1" for library in _THREADED_LIBRARIES}
_PARENT_CHECK_INTERVAL = 1.0
"""Seconds between a worker's looks at whether its parent lives."""
_BOOTSTRAP = (
    "import sys; sys.path[:] = __import__('ast').literal_eval(sys.argv[1]); "
    "from hesse.runtime.parallel.pool import worker_main; worker_main(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))"
)


def serialize(message: Any) -> bytes:
    """A message to a worker process."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


class WorkerProcess:
    """A worker process seen from its parent.

    Args:
        opening: the pickle of (set_up, spec).
        folder: where it works, if there is such a folder here; otherwise where its parent does.
        idle: seconds without a task after which it ends by itself (exit code 0); 0 for never.
    """

    def __init__(self, init_message: bytes, *, folder: str | None = None, idle_timeout: float = 0.0) -> None:
        parent_end, child_end = multiprocessing.Pipe()
        arguments = [repr(sys.path), str(child_end.fileno()), str(os.getpid()), str(idle_timeout)]
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _BOOTSTRAP, *arguments],
            pass_fds=[child_end.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # results are the parent's; engines like to talk
            env={**os.environ, **_ONE_THREAD_ENVIRONMENT},
            cwd=folder if folder is not None and Path(folder).is_dir() else None,
            process_group=0,  # a Ctrl-C in the terminal reaches the parent only
        )
        child_end.close()
        self.pipe = parent_end
        self.send(init_message)

    def send(self, message: bytes) -> None:
        """Hand over a message. It may have died already; the end of the pipe tells."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(message)

    def exit_description(self) -> str:
        """Why the pipe has ended, in words."""
        try:
            code = self.popen.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "the worker process stopped answering"
        if code < 0:
            return f"the worker process was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"the worker process ended with exit code {code}"

    def kill(self) -> None:
        """Kill it, whatever it is at."""
        self.pipe.close()
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


def worker_main(descriptor: int, parent_pid: int, idle_timeout: float) -> None:
    """What a worker process runs: set up once, then answer tasks until the parent goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's business
    threading.Thread(target=exit_with_parent, args=(parent_pid,), daemon=True).start()
    pipe: connection.Connection = connection.Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        make_worker, spec = pipe.recv()
        try:
            worker = make_worker(spec)
        except HesseError as error:
            pipe.send(error)
            return
        except Exception as error:
            pipe.send(ExecutionError(f"a worker could not be set up: {type(error).__name__}: {error}"))
            return
        pipe.send(None)
        while pipe.poll(idle_timeout or None):
            for index, task in pipe.recv():
                pipe.send_bytes(_serialize_result(run_task(worker, index, task)))


def _serialize_result(result: TaskResult[Any]) -> bytes:
    """The pickle of an outcome; of a failure when its answer cannot be pickled."""
    try:
        return serialize(result)
    except Exception as error:
        reason = f"unexpected {type(error).__name__}: the answer cannot leave the worker process ({error})"
        return serialize(TaskResult(result.index, None, reason, result.seconds))


def exit_with_parent(parent_pid: int) -> None:
    """End this process in the middle of a long task when the parent was killed."""
    while os.getppid() == parent_pid:
        time.sleep(_PARENT_CHECK_INTERVAL)
    os._exit(1)


_MAX_PENDING = 8
"""Tasks a worker holds at most: enough to hide the latency of the pipe behind tasks of a millisecond."""


def iter_local(
    make_worker: Callable[[Any], Any], spec: Any, tasks: Iterable[Any], *, workers: int, timeout: float | None
) -> Generator[TaskResult[Any], None, None]:
    """See `hesse.runtime.parallel.map_tasks`."""
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


# MERGED DOCSTRING (fold into the module docstring): """One worker process: a fresh interpreter (no fork, no re-import of the caller's script) that runs one thread, is set up once, takes tasks through a pipe and answers each before the next. When its parent goes away, it ends. Messages to it are pickles: first (set_up, spec), then lists of (index, task). Its answers are None once it is set up (or the exception that came of that), then one `Outcome` for each task. They travel between processes of one program; nothing is read from disk that way. POSIX only: the pipe is inherited. """

# MERGED DOCSTRING (fold into the module docstring): """Worker processes on this machine. When one dies, the first task it has not answered is the guilty one; the others it held go back to the queue."""
