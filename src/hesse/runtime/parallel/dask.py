"""Tasks on a dask.distributed cluster.

Each thread of a dask worker keeps a worker process of `hesse.runtime.parallel.pool`, which is set up once and does the
tasks. A crash or a slow task therefore ends only that process, and the dask worker continues. Tasks and results pass
through the cluster as bytes; only this program and the worker processes unpickle them.

Dask gives the tasks of a lost dask worker to other workers, and gives up a task whose worker was lost several times
(the scheduler's `distributed.scheduler.allowed-failures`, 3 unless configured). The cause may have been another task on
the same worker. Such a task therefore runs once more at the end, alone, and counts as failed if that ends in the same
way.
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

from hesse._version import __version__
from hesse.errors import ConfigError, ExecutionError, FileFormatError, HesseError, RequestError
from hesse.runtime.imports import import_optional
from hesse.runtime.parallel.pool import MAX_START_FAILURES, StartError, TaskResult, WorkerProcess, serialize

__all__ = ["iter_dask", "run_on_worker", "scheduler_address"]

_CONNECT_TIMEOUT = 10.0
"""Seconds to wait for a connection to the scheduler."""
_IDLE_TIMEOUT = 300.0
"""Seconds after which a worker process without a task exits: the driver may have been killed."""
_POLL_INTERVAL = 2.0
"""Seconds between two counts of the workers."""
_QUEUE_PER_THREAD = 2
"""Number of tasks that the scheduler holds for each thread of its workers; the rest waits in the driver."""
_MIN_QUEUE = 8
"""Smallest number of tasks that the scheduler holds."""
_CLOSE_TIMEOUT = 5.0
"""Seconds that the cluster has to stop running tasks."""


@dataclass(frozen=True)
class _Job:
    """Data that all tasks of one call of `map_tasks` share."""

    token: str
    init_message: bytes
    folder: str
    timeout: float | None


# --- the driver ------------------------------------------------------------------------------------------------------


def iter_dask(
    make_worker: Callable[[Any], Any],
    spec: Any,
    tasks: Iterable[Any],
    *,
    scheduler: str,
    timeout: float | None,
    on_message: Callable[[str], None],
) -> Generator[TaskResult[Any], None, None]:
    """See `hesse.runtime.parallel.map_tasks`."""
    distributed = import_optional("distributed", extra="cluster", purpose="work on a cluster")
    address, remaining = scheduler_address(scheduler), iter(tasks)
    first = list(itertools.islice(remaining, 1))
    if not first:
        return
    job = _Job(secrets.token_hex(8), serialize((make_worker, spec)), os.getcwd(), timeout)
    with _dask_log_disabled():
        client = _connect(distributed, address)
        driver = _DaskClient(distributed, client, address, job, on_message)
        try:
            yield from driver.results(itertools.chain(first, remaining))
        finally:
            driver.close()


@contextlib.contextmanager
def _dask_log_disabled() -> Iterator[None]:
    """Dask logs tracebacks of a lost connection; Hesse reports it in one sentence instead."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def scheduler_address(scheduler: str) -> str:
    """Address of a scheduler. No connection is made.

    Args:
        scheduler: the address itself, or the path of a scheduler file of dask.

    Returns:
        The address, such as "tcp://10.0.0.1:8786".

    Raises:
        ConfigError: `scheduler` is neither an address nor a file.
        FileFormatError: the file is not a scheduler file.
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
        return distributed.Client(address, timeout=_CONNECT_TIMEOUT, set_as_default=False, name="hesse")
    except (ValueError, TypeError, ImportError, RuntimeError) as error:  # an unknown protocol, TLS without certificates
        raise ConfigError(f"cannot connect to a scheduler at {address}: {error}") from error
    except OSError as error:
        raise ExecutionError(
            f"no scheduler responds at {address} ({type(error).__name__}: {str(error).splitlines()[0]}). Is it "
            "running, and can this machine reach it? `dask scheduler` starts one."
        ) from error


class _DaskClient:
    """Submits tasks to the scheduler, few at a time, and collects their results."""

    def __init__(
        self, distributed: Any, client: Any, address: str, job: _Job, on_message: Callable[[str], None]
    ) -> None:
        self.client, self.address, self.job, self.on_message = client, address, job, on_message
        self.killed_worker_error = distributed.KilledWorker
        self.comm_closed_error = distributed.comm.CommClosedError
        self.responses: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self.submitted: dict[int, tuple[Any, Any]] = {}
        self.quarantined: dict[int, Any] = {}
        self.retried: set[int] = set()
        self.job_bytes, self.entry = serialize(job), _make_remote_entry()
        self.max_submitted, self.last_refresh = 0, -_POLL_INTERVAL
        self.scheduler_lost = self.no_workers = False

    def results(self, tasks: Iterable[Any]) -> Iterator[TaskResult[Any]]:
        remaining = enumerate(tasks)
        while True:
            self._refresh_workers()
            while len(self.submitted) < self.max_submitted and (pair := next(remaining, None)) is not None:
                self._submit(*pair)
            if not self.submitted and self.quarantined:
                index, task = self.quarantined.popitem()
                self.retried.add(index)
                self._submit(index, task)
            if not self.submitted:
                return
            try:
                index, response = self.responses.get(timeout=_POLL_INTERVAL)
            except queue.Empty:
                continue
            _, task = self.submitted.pop(index)
            if isinstance(response, self.killed_worker_error) and index not in self.retried:
                self.quarantined[index] = task
            else:
                yield self._to_result(index, response)

    def close(self) -> None:
        """Cancel unfinished tasks. A scheduler that no longer responds is ignored."""
        with contextlib.suppress(Exception):
            if not self.scheduler_lost and self.client.status == "running":
                futures = [future for future, _ in self.submitted.values()]
                self.client.sync(_cancel, self.client, futures, self.job.token, callback_timeout=_CLOSE_TIMEOUT)
        self.submitted.clear()
        for _ in range(2):  # a client that is searching for a lost scheduler closes at the second attempt
            with contextlib.suppress(Exception, asyncio.CancelledError, concurrent.futures.CancelledError):
                self.client.close(timeout=_CLOSE_TIMEOUT)

    def _refresh_workers(self) -> None:
        """Count the workers, which come and go."""
        now = time.monotonic()
        if now - self.last_refresh < _POLL_INTERVAL:
            return
        self.last_refresh = now
        try:
            threads = sum(self.client.nthreads().values())
        except Exception as error:
            raise self._lost_scheduler_error(error) from error
        if threads == 0 and not self.no_workers:
            self.on_message(f"waiting: {self.address} has no worker; start one with `dask worker {self.address}`")
        self.no_workers = threads == 0
        self.max_submitted = max(_MIN_QUEUE, _QUEUE_PER_THREAD * threads)

    def _submit(self, index: int, task: Any) -> None:
        attempt = int(index in self.retried)
        key, task_bytes = (f"hesse-{self.job.token}", index, attempt), serialize([(index, task)])
        try:
            future = self.client.submit(self.entry, _version(), self.job_bytes, index, task_bytes, key=key, pure=False)
        except Exception as error:
            raise self._lost_scheduler_error(error) from error
        self.submitted[index] = (future, task)
        self.client.loop.add_callback(self._collect, index, future)

    async def _collect(self, index: int, future: Any) -> None:
        """Wait for a response and put it into the queue. Runs in the thread of the client."""
        try:
            response = await self.client.gather(future, asynchronous=True)
        except (Exception, asyncio.CancelledError) as error:
            response = error
        self.responses.put((index, response))

    def _to_result(self, index: int, response: Any) -> TaskResult[Any]:
        if isinstance(response, bytes):
            result: TaskResult[Any] | HesseError = pickle.loads(response)
            if isinstance(result, HesseError):  # the worker function could not be made: no task of the job can run
                raise result
            return result
        if isinstance(response, str):
            raise RequestError(
                f"{self.address}: a worker of the cluster {response}. Workers need the same versions as this program."
            )
        if isinstance(response, self.killed_worker_error):
            count = 2 * (response.allowed_failures + 1)
            return TaskResult(index, None, f"{count} workers of the cluster were lost while they had this task", 0.0)
        # Canceled, or (where the scheduler ends while a task is sent) a connection that was closed.
        if isinstance(response, asyncio.CancelledError | concurrent.futures.CancelledError | self.comm_closed_error):
            raise self._lost_scheduler_error(response)
        raise ExecutionError(
            f"the cluster at {self.address} cannot run tasks of Hesse: {type(response).__name__}: {response}. Its "
            f"workers must run in an environment like this one ({_version()})."
        )

    def _lost_scheduler_error(self, error: BaseException) -> ExecutionError:
        self.scheduler_lost = True
        return ExecutionError(
            f"lost the scheduler at {self.address}: it ended, was restarted, or cannot be reached any more "
            f"({type(error).__name__})."
        )


async def _cancel(client: Any, futures: list[Any], token: str) -> None:
    await client.cancel(futures, force=True, asynchronous=True)
    await client.run(_kill_job, token, on_error="ignore", asynchronous=True)


# --- the dask worker -------------------------------------------------------------------------------------------------

_PROCESSES: dict[tuple[str, int], WorkerProcess] = {}
"""The worker processes of this dask worker, by the token of their job and the thread that waits for them."""


def _version() -> str:
    return f"Hesse {__version__}, Python {sys.version_info.major}.{sys.version_info.minor}"


def _make_remote_entry() -> Callable[[str, bytes, int, bytes], Any]:
    """The function that dask runs on a worker. Dask pickles a nested function as code, not by its name, so that it can
    report that a worker has no Hesse (the import of an unknown name would end the worker)."""

    def entry(version: str, job: bytes, index: int, task: bytes) -> Any:
        import sys

        try:
            import hesse
        except ImportError as error:
            return f"has no Hesse ({error})"
        local_version = f"Hesse {hesse.__version__}, Python {sys.version_info.major}.{sys.version_info.minor}"
        if local_version != version:
            return f"runs {local_version}, this program {version}"
        from hesse.runtime.parallel.dask import run_on_worker

        return run_on_worker(job, index, task)

    return entry


def run_on_worker(job_bytes: bytes, index: int, task: bytes) -> bytes:
    """Run one task on a dask worker, in the worker process of this thread.

    Args:
        job_bytes: pickle of the data that all tasks of the job share.
        index: index of the task.
        task: pickle of [(index, task)].

    Returns:
        The pickle of the result, which is a failure if the process was lost or too slow; or of the error that occurred
        when the worker function was made.
    """
    job: _Job = pickle.loads(job_bytes)
    key, start = (job.token, threading.get_ident()), time.monotonic()
    n_start_failures = 0
    for _ in range(MAX_START_FAILURES):
        process = _PROCESSES.get(key)
        if process is None or process.popen.poll() is not None:
            process = _PROCESSES[key] = WorkerProcess(job.init_message, folder=job.folder, idle_timeout=_IDLE_TIMEOUT)
            if (failure := process.setup_failure()) is not None:
                _discard(key)
                n_start_failures += 1
                if isinstance(failure, StartError) and n_start_failures < MAX_START_FAILURES:
                    continue
                return serialize(failure)
        process.send(task)
        try:
            if process.pipe.poll(job.timeout):
                return process.pipe.recv_bytes()
            reason = f"stopped after {job.timeout:g} s (timeout)"
        except (EOFError, OSError):
            reason = process.exit_description()
        exited_idle = process.popen.poll() == 0  # it was idle for too long just when the task came: try again
        _discard(key)
        if not exited_idle:
            break
    return serialize(TaskResult(index, None, reason, time.monotonic() - start))


def _discard(key: tuple[str, int]) -> None:
    if (process := _PROCESSES.pop(key, None)) is not None:
        process.kill()


def _kill_job(token: str) -> None:
    """Kill all worker processes of a job, even in the middle of a task."""
    for key in [key for key in list(_PROCESSES) if key[0] == token]:
        if (process := _PROCESSES.pop(key, None)) is not None:
            # The pipe stays open: a thread may be waiting at it.
            process.popen.kill()
            process.popen.wait()
