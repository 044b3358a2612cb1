"""The one door to workers: in this process, in others on this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from hesse.errors import ConfigError
from hesse.workers.cluster import cluster_outcomes
from hesse.workers.local import local_outcomes
from hesse.workers.outcome import Outcome, attempt

__all__ = ["run_tasks"]

Spec = TypeVar("Spec")
Task = TypeVar("Task")
Answer = TypeVar("Answer")


def run_tasks(
    set_up: Callable[[Spec], Callable[[Task], Answer]],
    spec: Spec,
    tasks: Iterable[Task],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    notify: Callable[[str], None] = lambda news: None,
) -> Generator[Outcome[Answer], None, None]:
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
        HesseError: whatever `set_up` raised; the request is wrong for all tasks.
        WorkError: workers cannot start, or die before their first task; the cluster cannot be reached, is lost on the
            way, or runs another version of Hesse.
        ConfigError: numbers out of range, or both `workers` and `scheduler`.
    """
    if scheduler is not None and workers is not None:
        raise ConfigError("give either workers (processes on this machine) or a scheduler (a cluster), not both")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"expected a positive timeout, got {timeout}")
    if scheduler is not None:
        yield from cluster_outcomes(set_up, spec, tasks, scheduler=scheduler, timeout=timeout, notify=notify)
        return
    count = 1 if workers is None else workers
    if count < 0:
        raise ConfigError(f"expected workers >= 0, got {count}")
    if count == 0:
        work = None
        for index, task in enumerate(tasks):
            work = work or set_up(spec)
            yield attempt(work, index, task)
        return
    yield from local_outcomes(set_up, spec, tasks, workers=count, timeout=timeout)
