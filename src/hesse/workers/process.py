"""One worker process: a fresh interpreter (no fork, no re-import of the caller's script) that runs one thread, is set
up once, takes tasks through a pipe and answers each before the next. When its parent goes away, it ends.

Messages to it are pickles: first (set_up, spec), then lists of (index, task). Its answers are None once it is set up
(or the exception that came of that), then one `Outcome` for each task. They travel between processes of one program;
nothing is read from disk that way. POSIX only: the pipe is inherited.
"""

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
from multiprocessing import connection
from pathlib import Path
from typing import Any

from hesse.errors import HesseError, ExecutionError
from hesse.workers.outcome import TaskResult, run_task

__all__ = ["WorkerProcess", "exit_with_parent", "serialize", "worker_main"]

_THREADED_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
_ONE_THREAD_ENVIRONMENT = {f"{library}_NUM_THREADS": "1" for library in _THREADED_LIBRARIES}
_PARENT_CHECK_INTERVAL = 1.0
"""Seconds between a worker's looks at whether its parent lives."""
_BOOTSTRAP = (
    "import sys; sys.path[:] = __import__('ast').literal_eval(sys.argv[1]); "
    "from hesse.workers.process import serve; serve(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))"
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
