"""Tasks on a dask.distributed cluster.

A dask worker does not work itself: each of its threads keeps a worker process of `hesse.workers.process`, which is set
up once and does the tasks. A crash or a slow task therefore costs that process and leaves the dask worker alone. Tasks
and answers pass through the cluster as bytes that only the driver and those processes open.

Dask gives the tasks of a dask worker that is lost to others, and gives up a task whose worker was lost several times
(the scheduler's `distributed.scheduler.allowed-failures`, 3 unless configured). It may have been in bad company: such a
task gets a second chance at the end, with no other beside it, and is a failure when that ends in the same way.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import logging
import os
import pickle
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hesse import __version__
from hesse.errors import ConfigError, FileFormatError, HesseError, RequestError, WorkError
from hesse.optional import require
from hesse.workers.outcome import Outcome
from hesse.workers.process import WorkerProcess, pickled

__all__ = ["address_of", "answer", "cluster_outcomes"]

_CONNECT = 10.0
"""Seconds to wait for the scheduler's answer."""
_IDLE = 300.0
"""Seconds after which a worker process without a task ends: its driver may have been killed."""
_LOOK = 2.0
"""Seconds between looks at how many workers there are."""
_AHEAD = 2
"""Tasks the scheduler holds for each thread of its workers; the rest waits with the driver."""
_LEAST = 8
"""Tasks the scheduler holds at least."""
_GOODBYE = 5.0
"""Seconds given to the cluster to stop what it is at."""


@dataclass(frozen=True)
class _Job:
    """What all tasks of one call of `run_tasks` share."""

    token: str
    opening: bytes
    folder: str
    timeout: float | None


@dataclass(frozen=True)
class _Refusal:
    """No task of this job can be done here, because of `error`."""

    error: HesseError


# --- the driver ------------------------------------------------------------------------------------------------------


def cluster_outcomes(
    set_up: Callable[[Any], Any],
    spec: Any,
    tasks: Iterable[Any],
    *,
    scheduler: str,
    timeout: float | None,
    notify: Callable[[str], None],
) -> Generator[Outcome[Any], None, None]:
    """See `hesse.workers.run_tasks`."""
    distributed = require("distributed", extra="cluster", purpose="work on a cluster")
    address, waiting = address_of(scheduler), iter(tasks)
    first = list(itertools.islice(waiting, 1))
    if not first:
        return
    job = _Job(secrets.token_hex(8), pickled((set_up, spec)), os.getcwd(), timeout)
    with _without_log():
        client = _connect(distributed, address)
        driver = _Driver(distributed, client, address, job, notify)
        try:
            yield from driver.outcomes(itertools.chain(first, waiting))
        finally:
            driver.close()


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Dask logs tracebacks of a lost connection; here it is told in one sentence."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def address_of(scheduler: str) -> str:
    """The address that `scheduler` is, or that the scheduler file of that name holds. Nobody is called.

    Raises:
        ConfigError: neither of the two.
        FileFormatError: a file that is no scheduler file.
    """
    if Path(scheduler).is_file():
        try:
            return str(json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{scheduler}: not a scheduler file of dask ({type(error).__name__}: {error}); expected one written by "
                "`dask scheduler --scheduler-file`"
            ) from error
    host, _, port = scheduler.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f'"{scheduler}" is neither the address of a scheduler, such as tcp://10.0.0.1:8786, nor a scheduler file'
        )
    return scheduler


def _connect(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=_CONNECT, set_as_default=False, name="hesse")
    except (ValueError, TypeError, ImportError, RuntimeError) as error:  # an unknown protocol, TLS without certificates
        raise ConfigError(f"cannot connect to a scheduler at {address}: {error}") from error
    except OSError as error:
        raise WorkError(
            f"no scheduler answers at {address} ({type(error).__name__}: {str(error).splitlines()[0]}). Is it running, "
            "and can this machine reach it? `dask scheduler` starts one."
        ) from error


class _Driver:
    """Keeps the scheduler supplied, and no more than that."""

    def __init__(self, distributed: Any, client: Any, address: str, job: _Job, notify: Callable[[str], None]) -> None:
        self.client, self.address, self.job, self.notify = client, address, job, notify
        self.killed = distributed.KilledWorker
        self.closed = distributed.comm.CommClosedError
        self.arrived: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self.given: dict[int, tuple[Any, Any]] = {}
        self.condemned: dict[int, Any] = {}
        self.retried: set[int] = set()
        self.sealed, self.door = pickled(job), _door()
        self.window, self.looked = 0, -_LOOK
        self.lost = self.alone = False

    def outcomes(self, tasks: Iterable[Any]) -> Iterator[Outcome[Any]]:
        waiting = enumerate(tasks)
        while True:
            self._look()
            while len(self.given) < self.window and (pair := next(waiting, None)) is not None:
                self._give(*pair)
            if not self.given and self.condemned:
                index, task = self.condemned.popitem()
                self.retried.add(index)
                self._give(index, task)
            if not self.given:
                return
            try:
                index, answer = self.arrived.get(timeout=_LOOK)
            except queue.Empty:
                continue
            _, task = self.given.pop(index)
            if isinstance(answer, self.killed) and index not in self.retried:
                self.condemned[index] = task
            else:
                yield self._read(index, answer)

    def close(self) -> None:
        """Stop what is not finished. A cluster that no longer listens is left to itself."""
        with contextlib.suppress(Exception):
            if not self.lost and self.client.status == "running":
                futures = [future for future, _ in self.given.values()]
                self.client.sync(_say_goodbye, self.client, futures, self.job.token, callback_timeout=_GOODBYE)
        self.given.clear()
        for _ in range(2):  # a client in the middle of looking for a lost scheduler closes at the second attempt
            with contextlib.suppress(Exception, asyncio.CancelledError, concurrent.futures.CancelledError):
                self.client.close(timeout=_GOODBYE)

    def _look(self) -> None:
        """See how many workers there are now: they come and go."""
        now = time.monotonic()
        if now - self.looked < _LOOK:
            return
        self.looked = now
        try:
            threads = sum(self.client.nthreads().values())
        except Exception as error:
            raise self._gone(error) from error
        if threads == 0 and not self.alone:
            self.notify(f"waiting: {self.address} has no worker; start one with `dask worker {self.address}`")
        self.alone = threads == 0
        self.window = max(_LEAST, _AHEAD * threads)

    def _give(self, index: int, task: Any) -> None:
        attempt = int(index in self.retried)
        key, sealed = (f"hesse-{self.job.token}", index, attempt), pickled([(index, task)])
        try:
            future = self.client.submit(self.door, _version(), self.sealed, index, sealed, key=key, pure=False)
        except Exception as error:
            raise self._gone(error) from error
        self.given[index] = (future, task)
        self.client.loop.add_callback(self._collect, index, future)

    async def _collect(self, index: int, future: Any) -> None:
        """Runs in the client's thread: wait for an answer and hand it over."""
        try:
            answer = await self.client.gather(future, asynchronous=True)
        except (Exception, asyncio.CancelledError) as error:
            answer = error
        self.arrived.put((index, answer))

    def _read(self, index: int, answer: Any) -> Outcome[Any]:
        if isinstance(answer, bytes):
            outcome: Outcome[Any] = pickle.loads(answer)
            return outcome
        if isinstance(answer, Outcome):
            return answer
        if isinstance(answer, _Refusal):
            raise answer.error
        if isinstance(answer, str):
            raise RequestError(f"{self.address}: a worker of the cluster {answer}. Workers need what this program has.")
        if isinstance(answer, self.killed):
            count = 2 * (answer.allowed_failures + 1)
            return Outcome(index, None, f"{count} workers of the cluster were lost while they held it", 0.0)
        # Cancelled, or (where the scheduler ends while a task is sent) a connection that was closed.
        if isinstance(answer, asyncio.CancelledError | concurrent.futures.CancelledError | self.closed):
            raise self._gone(answer)
        raise WorkError(
            f"the cluster at {self.address} cannot run tasks of Hesse: {type(answer).__name__}: {answer}. Its workers "
            f"must run in an environment like this one ({_version()})."
        )

    def _gone(self, error: BaseException) -> WorkError:
        self.lost = True
        return WorkError(
            f"lost the scheduler at {self.address}: it ended, was restarted, or cannot be reached any more "
            f"({type(error).__name__})."
        )


async def _say_goodbye(client: Any, futures: list[Any], token: str) -> None:
    await client.cancel(futures, force=True, asynchronous=True)
    await client.run(_dismiss, token, on_error="ignore", asynchronous=True)


# --- the dask worker -------------------------------------------------------------------------------------------------

_PROCESSES: dict[str, set[WorkerProcess]] = {}
"""All worker processes of this dask worker, by the job they were set up for."""
_FREE: dict[str, list[WorkerProcess]] = {}
"""Those that have no task."""
_LOCK = threading.Lock()


def _version() -> str:
    return f"Hesse {__version__}, Python {sys.version_info.major}.{sys.version_info.minor}"


def _door() -> Callable[[str, bytes, int, bytes], Any]:
    """What dask carries to a worker. A function within a function goes there whole, not by name: a worker without Hesse
    can still say so (a name that it cannot import would end it)."""

    def door(version: str, job: bytes, index: int, task: bytes) -> Any:
        import sys

        try:
            import hesse
        except ImportError as error:
            return f"has no Hesse ({error})"
        here = f"Hesse {hesse.__version__}, Python {sys.version_info.major}.{sys.version_info.minor}"
        if here != version:
            return f"runs {here}, this program {version}"
        from hesse.workers.cluster import answer

        return answer(job, index, task)

    return door


def answer(sealed: bytes, index: int, task: bytes) -> bytes | Outcome[Any] | _Refusal:
    """What a dask worker does with a task: the pickle of its outcome, or an outcome when its process was lost."""
    job: _Job = pickle.loads(sealed)
    start = time.monotonic()
    for _ in range(2):
        process = _taken(job)
        if isinstance(process, _Refusal):
            return process
        process.send(task)
        try:
            if not process.pipe.poll(job.timeout):
                _discard(job.token, process)
                return Outcome(index, None, f"stopped after {job.timeout:g} s (timeout)", time.monotonic() - start)
            answer = process.pipe.recv_bytes()
        except (EOFError, OSError):
            reason = process.cause_of_death()
            left = process.process.poll() == 0  # idle for too long just when the task came: not the task's fault
            _discard(job.token, process)
            if left:
                continue
            return Outcome(index, None, reason, time.monotonic() - start)
        with _LOCK:
            _FREE.setdefault(job.token, []).append(process)
        return answer
    return Outcome(index, None, "the worker process ended with exit code 0", time.monotonic() - start)


def _taken(job: _Job) -> WorkerProcess | _Refusal:
    """A worker process without a task, new if need be."""
    with _LOCK:
        free = _FREE.get(job.token, [])
        while free:
            process = free.pop()
            if process.process.poll() is None:
                return process
            _PROCESSES.get(job.token, set()).discard(process)
            process.end()
        process = WorkerProcess(job.opening, folder=job.folder, idle=_IDLE)
        _PROCESSES.setdefault(job.token, set()).add(process)
    try:
        problem = process.pipe.recv()
    except (EOFError, OSError):
        problem = WorkError(f"a worker process could not start: {process.cause_of_death()}")
    if problem is None:
        return process
    _discard(job.token, process)
    return _Refusal(problem)


def _discard(token: str, process: WorkerProcess) -> None:
    with _LOCK:
        _PROCESSES.get(token, set()).discard(process)
    process.end()


def _dismiss(token: str) -> None:
    """End all worker processes of a job, whatever they are at."""
    with _LOCK:
        leaving = _PROCESSES.pop(token, set())
        _FREE.pop(token, None)
    for process in leaving:
        # The thread that waits for the process closes its side.
        process.process.kill()
        process.process.wait()
