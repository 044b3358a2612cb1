"""Many searches over worker processes, of which those that a journal holds are not repeated."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hesse.errors import InterruptedRunError
from hesse.runtime.parallel import TaskResult, map_tasks
from hesse.runtime.progress import track
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.sampling.search_journal import FinishedSearch, SearchJournal, journal_path

__all__ = ["JournaledRun", "in_workers", "run_journaled"]

Task = TypeVar("Task")
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class JournaledRun:
    """Results of many searches.

    Attributes:
        found: the finished searches by the index of their task.
        errors: why others failed, likewise.
        n_reused: number of searches that the journal held.
    """

    found: dict[int, FinishedSearch]
    errors: dict[int, str]
    n_reused: int


def in_workers(
    make_worker: Callable[[Any], Callable[[Task], Value]], spec: Any, workers: int | None
) -> Callable[[list[Task]], Generator[TaskResult[Value], None, None]]:
    """A function that solves tasks in worker processes.

    Args:
        make_worker: see `hesse.runtime.parallel.map_tasks`.
        spec: see there.
        workers: number of processes, see there.

    Returns:
        The function, for `run_journaled`.
    """
    return lambda tasks: map_tasks(make_worker, spec, tasks, workers=workers)


def run_journaled(
    solve: Callable[[list[Task]], Generator[TaskResult[Value], None, None]],
    tasks: Sequence[Task],
    keys: Sequence[str],
    finish: Callable[[int, Value], FinishedSearch],
    *,
    output: Path | None,
    title: str,
    quiet: bool,
) -> JournaledRun:
    """Run the tasks that the journal of an output file does not hold, and keep each result at once.

    Args:
        solve: solves a list of tasks, as `hesse.runtime.parallel.map_tasks` does; see `in_workers`.
        tasks: one per search.
        keys: key of each task, see `search_key`.
        finish: makes the record of a task from its index and what the worker returned, in this process.
        output: the output file, whose journal is used; None keeps nothing.
        title: of the progress.
        quiet: no progress.

    Returns:
        The records and the errors.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        HesseError: all that `solve` raises, or a journal that cannot be read or written.
    """
    opened = nullcontext(None) if output is None else SearchJournal.open(journal_path(output))
    with opened as journal:
        known = [None if journal is None else journal.finished(key) for key in keys]
        finished = {i: search for i, search in enumerate(known) if search is not None}
        n_reused, errors = len(finished), dict[int, str]()
        pending = [i for i in range(len(tasks)) if i not in finished]
        results = solve([tasks[i] for i in pending])
        with track(title, len(tasks), quiet=quiet, done=n_reused) as advance:
            try:
                with stop_signals():
                    for done in results if pending else ():
                        i = pending[done.index]
                        if done.value is None:
                            errors[i] = done.error
                        else:
                            finished[i] = finish(i, done.value)
                            if journal is not None:
                                journal.add(keys[i], finished[i])
                        advance(1)
            except StoppedError:
                results.close()
                resumes = (
                    "nothing is kept" if journal is None else f"kept in {journal.path}; the same command continues"
                )
                message = f"stopped after {len(finished)} of {len(tasks)} searches, {resumes}"
                raise InterruptedRunError(message) from None
    return JournaledRun(finished, errors, n_reused)
