"""Worker processes, and a pool of them on this machine.

A worker process is a fresh interpreter (no fork, and the script of the caller is not imported again) that runs one
thread. It is set up once, then it takes tasks through a pipe and sends the result of each before it starts the next. It
exits when its parent process goes away. POSIX only: the pipe is inherited.

Messages to a worker are pickles: first (make_worker, spec), then lists of (index, task). A worker sends None once it is
set up (or the exception that was raised), then one `TaskResult` per task. Pickles pass only between processes of one
program; none is read from disk.

When a worker of the pool dies, the first of its tasks without a result gets the error; its other tasks return to the
queue.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from hesse.errors import ExecutionError, HesseError, InterruptedRunError
from hesse.runtime.processes import python_command
from hesse.runtime.signals import StoppedError

__all__ = [
    "MAX_START_FAILURES",
    "StartError",
    "TaskResult",
    "WorkerProcess",
    "exit_with_parent",
    "iter_local",
    "run_task",
    "serialize",
    "worker_main",
]

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class TaskResult(Generic[Value]):
    """Result of one task.

    Attributes:
        index: index of the task.
        value: its value; None if it failed.
        error: why it failed; empty if it did not.
        seconds: time it took, s.
    """

    index: int
    value: Value | None
    error: str
    seconds: float

    @property
    def failed(self) -> bool:
        """True if the task failed."""
        return bool(self.error)

    def raise_if_interrupted(self) -> None:
        """Stop this process too if the task was stopped by SIGINT or SIGTERM, which may not have arrived here yet.

        Raises:
            StoppedError: it was.
        """
        if self.error.startswith(f"{InterruptedRunError.__name__}:"):
            raise StoppedError


def run_task(worker: Callable[[Any], Any], index: int, task: Any) -> TaskResult[Any]:
    """Call `worker(task)`, and turn exceptions into results.

    Args:
        worker: the function.
        index: index of the task.
        task: its argument.

    Returns:
        The value, or the type and message of the exception.
    """
    start = time.perf_counter()
    try:
        value, message = worker(task), ""
    except HesseError as error:
        value, message = None, f"{type(error).__name__}: {error}"
    except Exception as error:
        value, message = None, f"unexpected {type(error).__name__}: {error}"
    except SystemExit as error:  # a program that was made for the command line
        value, message = None, f"the engine ended its program (exit code {error.code})"
    return TaskResult(index, value, message, time.perf_counter() - start)


_THREADED_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
_ONE_THREAD_ENVIRONMENT = {f"{library}_NUM_THREADS": "1" for library in _THREADED_LIBRARIES}
_PARENT_CHECK_INTERVAL = 1.0
"""Seconds between two checks of a worker whether its parent is alive."""
_BOOTSTRAP = (
    "from hesse.runtime.parallel.pool import worker_main; "
    "worker_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))"
)
MAX_START_FAILURES = 3
"""Number of processes in succession that may end before they are set up: one may have been killed by chance, three have
a cause."""


def serialize(message: Any) -> bytes:
    """Serialize a message to a worker process.

    Args:
        message: any picklable object.

    Returns:
        Its pickle.
    """
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


class StartError(ExecutionError):
    """A worker process ended before it was set up."""


class WorkerProcess:
    """A worker process, seen from its parent.

    Args:
        init_message: pickle of (make_worker, spec).
        folder: working directory of the process, if it exists on this machine; otherwise that of its parent.
        idle_timeout: seconds without a task after which it exits with code 0; 0 for never.
    """

    def __init__(self, init_message: bytes, *, folder: str | None = None, idle_timeout: float = 0.0) -> None:
        parent_end, child_end = multiprocessing.Pipe()
        arguments = [str(child_end.fileno()), str(os.getpid()), str(idle_timeout)]
        self.popen = subprocess.Popen(
            python_command(_BOOTSTRAP, arguments, folder=folder),
            pass_fds=[child_end.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # standard output is for results of the parent; engines print
            env={**os.environ, **_ONE_THREAD_ENVIRONMENT},
            cwd=folder if folder is not None and Path(folder).is_dir() else None,
            process_group=0,  # a Ctrl-C in the terminal reaches the parent only
        )
        child_end.close()
        self.pipe = parent_end
        self.send(init_message)

    def send(self, message: bytes) -> None:
        """Send a message. No error if the process has died: reading from the pipe shows that.

        Args:
            message: pickle of a list of (index, task).
        """
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(message)

    def setup_failure(self) -> HesseError | None:
        """Wait until the process is set up.

        Returns:
            The error that prevented it; None if the process is ready for tasks.
        """
        try:
            failure: HesseError | None = self.pipe.recv()
        except (EOFError, OSError):
            return StartError(f"a worker process could not start: {self.exit_description()}")
        return failure

    def exit_description(self) -> str:
        """Describe how the process ended.

        Returns:
            A text with the signal or the exit code.
        """
        try:
            code = self.popen.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "the worker process stopped responding"
        if code < 0:
            return f"the worker process was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"the worker process ended with exit code {code}"

    def kill(self) -> None:
        """Kill the process, even in the middle of a task."""
        self.pipe.close()
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


def worker_main(descriptor: int, parent_pid: int, idle_timeout: float) -> None:
    """Main function of a worker process: set up once, then work on tasks until the parent goes away.

    Args:
        descriptor: file descriptor of the pipe.
        parent_pid: process id of the parent.
        idle_timeout: seconds without a task after which the process exits; 0 for never.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.set_inheritable(descriptor, False)  # programs of the engine must not keep the pipe open when this process dies
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
    """Pickle of a result; of a failure if its value cannot be pickled."""
    try:
        return serialize(result)
    except Exception as error:
        reason = f"unexpected {type(error).__name__}: the result cannot be sent by the worker process ({error})"
        return serialize(TaskResult(result.index, None, reason, result.seconds))


def exit_with_parent(parent_pid: int) -> None:
    """Exit from this process, even in the middle of a task, when its parent process has ended. Runs in a thread.

    Args:
        parent_pid: process id of the parent.
    """
    while os.getppid() == parent_pid:
        time.sleep(_PARENT_CHECK_INTERVAL)
    os._exit(1)


_MAX_PENDING = 8
"""Largest number of tasks that a worker holds: enough to hide the latency of the pipe behind tasks of a millisecond."""


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
    """One process, and the tasks that it has received and not finished."""

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
        self.init_message, self.queue, self.timeout, self.n_start_failures = init_message, queue, timeout, 0
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
        """Results that the worker has sent; an error for its current task if it has died."""
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    worker.ready, self.n_start_failures = True, 0
                else:
                    worker.pending.popleft()
                    worker.busy_since = time.monotonic()
                    yield message
        except (EOFError, OSError):  # OSError: it died in the middle of a message
            yield from self._handle_exit(worker, worker.process.exit_description())
            return
        if worker.ready and not worker.pending and self.queue:
            # Near the end each worker gets few tasks at a time, so that none holds many while others are idle.
            n_tasks = max(1, min(_MAX_PENDING, len(self.queue) // (2 * len(self.workers))))
            worker.submit([self.queue.popleft() for _ in range(n_tasks)])

    def _handle_exit(self, worker: _Worker, reason: str) -> Iterator[TaskResult[Any]]:
        worker.process.kill()
        self.workers.remove(worker)
        if not worker.pending:
            self.n_start_failures += not worker.ready
            if self.n_start_failures >= MAX_START_FAILURES:
                raise ExecutionError(
                    f"worker processes could not start, {self.n_start_failures} in succession: {reason}"
                )
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
