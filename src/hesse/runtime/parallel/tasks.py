"""The one door to workers: in this process, in others on this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from hesse.errors import ConfigError
from hesse.runtime.parallel.dask import iter_dask
from hesse.runtime.parallel.pool import TaskResult, iter_local, run_task

__all__ = ["map_tasks"]

Spec = TypeVar("Spec")
Task = TypeVar("Task")
Value = TypeVar("Value")


def map_tasks(
    make_worker: Callable[[Spec], Callable[[Task], Value]],
    spec: Spec,
    tasks: Iterable[Task],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    on_message: Callable[[str], None] = lambda news: None,
) -> Generator[TaskResult[Value], None, None]:
    """Outcomes of all tasks, as they come.

    A task that kills its process (or is too slow) is an outcome with a reason; the others go on. Closing the generator
    stops the work.

    Args:
        set_up: a function of a module; called once per worker with `spec`, it returns what answers tasks.
        workers: processes on this machine, one by default; 0 works in this one (no protection against crashes, no
            timeout).
        scheduler: instead, a dask.distributed cluster: the address of its scheduler (`tcp://host:8786`) or its
            scheduler file. Tasks wait here, and few of them there, until there is a worker for them.
        timeout: seconds one task may take before its process is killed.
        notify: told in words when the work cannot go on by itself (a cluster without workers).

    Raises:
        HesseError: whatever `make_worker` raised; the request is wrong for all tasks.
        WorkError: workers cannot start, or die before their first task; the cluster cannot be reached, is lost on the
            way, or runs another version of Hesse.
        ConfigError: numbers out of range, or both `workers` and `scheduler`.
    """
    if scheduler is not None and workers is not None:
        raise ConfigError("give either workers (processes on this machine) or a scheduler (a cluster), not both")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"expected a positive timeout, got {timeout}")
    if scheduler is not None:
        yield from iter_dask(make_worker, spec, tasks, scheduler=scheduler, timeout=timeout, on_message=on_message)
        return
    n_workers = 1 if workers is None else workers
    if n_workers < 0:
        raise ConfigError(f"expected workers >= 0, got {n_workers}")
    if n_workers == 0:
        worker = None
        for index, task in enumerate(tasks):
            worker = worker or make_worker(spec)
            yield run_task(worker, index, task)
        return
    yield from iter_local(make_worker, spec, tasks, workers=n_workers, timeout=timeout)
