"""Computations of one structure each, in processes, whose results are kept in a journal at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hesse.engines import Engine, as_engine
from hesse.errors import InterruptedRunError
from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.sampling.search_journal import FinishedSearch, SearchJournal, search_key
from hesse.structures import Structure

__all__ = ["HessianRun", "JournaledTasks", "interrupted"]


@dataclass(frozen=True)
class HessianRun:
    """How Hessians of many structures are computed.

    Attributes:
        engine: its name, or the engine itself, which works in this process.
        output: file of the Hessians, beside which ledger and journal are kept; None keeps nothing.
        workers: number of processes.
        scheduler: a dask cluster instead.
        timeout: seconds for one structure.
        retry_failed: try failures of earlier runs again.
        quiet: no progress.
    """

    engine: str | Engine
    output: Path | None = None
    workers: int | None = None
    scheduler: str | None = None
    timeout: float | None = None
    retry_failed: bool = False
    quiet: bool = False

    @cached_property
    def engine_object(self) -> Engine:
        """The engine in this process."""
        return as_engine(self.engine)

    @property
    def level(self) -> str:
        """Its level of theory."""
        return self.engine_object.level


@dataclass(frozen=True)
class JournaledTasks:
    """Tasks with one structure each, whose results are kept in a journal.

    Attributes:
        settings: engine and processes.
        journal: the journal; None keeps nothing.
        options: everything but structure and engine that determines a result; JSON values by name.
        title: of the progress line.
    """

    settings: HessianRun
    journal: SearchJournal | None
    options: Mapping[str, Any]
    title: str

    def run(
        self,
        make_worker: Callable[[Any], Callable[[Structure], Any]],
        structures: Mapping[int, Structure],
        spec: Any,
        to_record: Callable[[Any], FinishedSearch | str],
    ) -> tuple[dict[int, FinishedSearch | str], int]:
        """Run the tasks that the journal does not have.

        Args:
            make_worker: see `hesse.runtime.parallel.map_tasks`; its argument is the engine and `spec`.
            structures: the structures by index.
            spec: further argument of `make_worker`.
            to_record: makes a record of a result, or the reason why there is none.

        Returns:
            Record or reason by index, and the number of records that the journal had.

        Raises:
            InterruptedRunError: SIGINT or SIGTERM.
        """
        settings, journal = self.settings, self.journal
        engine = settings.engine_object
        keys = {i: search_key(structure, engine, self.options) for i, structure in structures.items()}
        found: dict[int, FinishedSearch | str] = {}
        for i in structures:
            known = None if journal is None else journal.finished(keys[i])
            if known is not None:
                found[i] = known
        n_known = len(found)
        pending = [i for i in structures if i not in found]
        results = map_tasks(
            make_worker,
            (settings.engine, spec),
            [structures[i] for i in pending],
            workers=settings.workers,
            scheduler=settings.scheduler,
            timeout=settings.timeout,
        )
        with track(self.title, len(structures), quiet=settings.quiet, done=len(found)) as advance:
            try:
                with stop_signals():
                    for done in results if pending else ():
                        i = pending[done.index]
                        record = done.error if done.value is None else to_record(done.value)
                        found[i] = record
                        if journal is not None and not isinstance(record, str):
                            journal.add(keys[i], record)
                        advance(1)
            except StoppedError:
                results.close()
                raise interrupted(len(found), len(structures), journal) from None
        return found, n_known


def interrupted(n_done: int, count: int, journal: SearchJournal | None) -> InterruptedRunError:
    """The error after a signal.

    Args:
        n_done: number of finished structures.
        count: number of all.
        journal: where they are kept.

    Returns:
        The error to raise.
    """
    kept = "without an output nothing is kept"
    if journal is not None:
        kept = f"kept in {journal.path}; the same command continues"
    return InterruptedRunError(f"stopped after {n_done} of {count} structures; {kept}")
