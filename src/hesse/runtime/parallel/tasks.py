"""Map a function over tasks: in this process, in processes of this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from hesse.errors import ConfigError, check_numbers, check_whole_numbers
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
    on_message: Callable[[str], None] = lambda message: None,
) -> Generator[TaskResult[Value], None, None]:
    """Run tasks in workers, and yield their results in the order in which they finish.

    The result of a task that raises, kills its process or exceeds the timeout is an error text; the other tasks go on.
    Closing the generator stops the work.

    Args:
        make_worker: function at the top level of a module. It is called once in each worker process with `spec`, and
            returns the function that is applied to the tasks.
        spec: argument of `make_worker`; it must be picklable.
        tasks: arguments of the function that `make_worker` returns; they must be picklable.
        workers: number of processes on this machine, 1 by default; 0 works in this process, without protection against
            crashes and without timeout.
        scheduler: instead, a dask.distributed cluster: the address of its scheduler (`tcp://host:8786`) or the path of
            its scheduler file. The scheduler holds few tasks at a time; the rest waits in this process.
        timeout: seconds after which the process of a task is killed.
        on_message: called with a text when the work cannot go on by itself (a cluster without workers).

    Returns:
        A generator of one result per task.

    Raises:
        HesseError: the error of `make_worker`; the request is wrong for all tasks.
        ExecutionError: workers cannot start, or die before their first task; the cluster cannot be reached, is lost
            during the work, or cannot run the tasks.
        RequestError: the cluster runs another version of Hesse.
        ConfigError: numbers out of range, or both `workers` and `scheduler`.
    """
    if scheduler is not None and workers is not None:
        raise ConfigError("give either workers (processes on this machine) or a scheduler (a cluster), not both")
    if timeout is not None:
        check_numbers(timeout=timeout)
    if workers is not None:
        check_whole_numbers(workers=workers)
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
