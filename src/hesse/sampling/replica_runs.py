"""Many replicas of molecular dynamics of many molecules, for `hesse md`: relaxation, dynamics, rows and trajectories.

Models move the replicas of all molecules in batches; other engines one replica per worker process. Finished replicas
and the states of others are kept in a folder, so that the same call continues after an interruption.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from hesse.datasets import Dataset, StructuresLike
from hesse.engines import Engine, EngineLike, PotentialEngine, as_engine, engine_for_workers
from hesse.errors import ConfigError, ExtrapolationWarning, InterruptedRunError, RequestError, check_whole_numbers
from hesse.pes.md_failures import Failure
from hesse.pes.md_forces import compile_forces
from hesse.pes.md_replicas import MAX_ATOMS, Replica, ReplicaRun, advance_replicas, replica_row
from hesse.pes.md_settings import ReplicaSettings
from hesse.pes.md_start import starting_geometry
from hesse.pes.md_survival import SurvivalCurve, survival_of_rows
from hesse.pes.training_range import extrapolation, extrapolation_columns
from hesse.runtime.parallel import map_tasks
from hesse.runtime.parallel.pool import TaskResult
from hesse.runtime.progress import AdvanceCallback, track
from hesse.runtime.settings import settings_from
from hesse.runtime.short_repr import ShortRepr
from hesse.runtime.signals import StoppedError, deferred_signals, stop_signals
from hesse.sampling.reactions import as_dataset_of
from hesse.sampling.replica_store import ReplicaStore, replica_key, store_path
from hesse.sampling.samples import energy_labels, with_name
from hesse.sampling.starts import validated_starts
from hesse.structures import Properties, Structure

__all__ = ["ReplicaResult", "run_replicas"]

SAVE_INTERVAL = 60.0
"""Seconds between saved states of replicas in motion."""


@dataclass(frozen=True, eq=False, repr=False)
class ReplicaResult(ShortRepr):
    """The result of many replicas.

    Attributes:
        rows: one per replica: JSON values by name: id, structure, seed, survived, reason (see
            `hesse.pes.FailureReason`), detail, time (ps; None where there was no dynamics), steps, temperature (K, of
            the thermostat at the end), mean_temperature (K), energy_drift (eV/ps, of the total energy less the heat of
            the thermostat), level, protocol; of models, how far the last snapshot is from their training data.
        dataset: the snapshots with energies and forces; None without any.
        n_reused: number of replicas that were finished before.
        seconds: of the dynamics of this call, without relaxation and compilation; 0 for those of other processes.
    """

    rows: tuple[dict[str, Any], ...]
    dataset: Dataset | None
    n_reused: int = 0
    seconds: float = 0.0

    def survival(self, *, level: float = 0.95) -> SurvivalCurve | None:
        """The survival curve of all replicas, over time in ps.

        Args:
            level: confidence of the band.

        Returns:
            The curve; None if no replica was started.
        """
        return survival_of_rows(self.rows, level=level)

    def to_ase(self) -> list[Atoms]:
        """Convert the snapshots to ASE.

        Returns:
            Geometries whose calculators hold energies (eV) and forces (eV/Å); ids and tags are in `atoms.info`.
        """
        return [] if self.dataset is None else self.dataset.to_ase()


def run_replicas(
    structures: StructuresLike,
    engine: EngineLike,
    output: str | Path | None = None,
    settings: ReplicaSettings | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> ReplicaResult:
    """Run molecular dynamics of molecules with several seeds each, and record which runs fail, when and why.

    Args:
        structures: ASE Atoms, a Structure, a list of them, a Dataset, or the path of a file.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator. The replicas of a
            potential move together, in one evaluation per step.
        output: the output file of the caller: the replicas are kept in the folder `OUTPUT.replicas`, finished or not,
            and the same call continues there. None keeps nothing.
        settings: ensemble, temperature or ramp, length, criterion of failure.
        seeds: how many (0, 1, 2, ...), or the seeds themselves.
        workers: number of processes of one thread each; by default 1 for engines, 0 (this process) for models.
        scheduler: instead, a dask cluster whose machines see the folder of `output` at the same path; see
            `hesse.runtime.parallel.map_tasks`.
        quiet: no progress.
        **options: the fields of `ReplicaSettings` in place of `settings`.

    Returns:
        A row for each replica, and the snapshots.

    Raises:
        ConfigError: compile with an engine that is no potential.
        RequestError: two structures have the same id; no seeds; an engine object together with workers; a cluster
            without an output.
        InterruptedRunError: SIGINT or SIGTERM; with an output, the same call continues.
        HesseError: the input cannot be read, or there is no such engine.
    """
    settings = settings_from(ReplicaSettings, settings, options)
    starts, numbers = validated_starts(structures), _checked_seeds(seeds)
    spec, workers = engine_for_workers(engine, workers, scheduler)
    source = as_engine(spec)
    if settings.compile and not isinstance(source, PotentialEngine):
        raise ConfigError(f"compile is for models, and {source.level} is not one: leave it out")
    if scheduler is not None and output is None:
        raise RequestError("a cluster needs an output, in a folder that all of its machines see: it keeps the replicas")
    if workers is None and scheduler is None:
        workers = 0 if isinstance(source, PotentialEngine) else 1
    pool = _Pool(workers, scheduler)
    with _open_store(output) as store:
        pairs = [(i, seed) for i in range(len(starts)) for seed in numbers]
        keys = {pair: replica_key(starts[pair[0]], source, settings, pair[1]) for pair in pairs}
        known = {pair: store.load(keys[pair], Replica(starts[pair[0]], pair[1])) for pair in pairs}
        runs = {pair: run for pair, run in known.items() if run is not None}
        n_reused = sum(run.failure is not None or run.step >= settings.n_steps for run in runs.values())
        try:
            failures = _begin(starts, pairs, runs, spec if pool.elsewhere else source, settings, pool, quiet)
            pending = {keys[p]: run for p, run in runs.items() if run.failure is None and run.step < settings.n_steps}
            lost: dict[str, ReplicaRun] = {}
            if settings.compile and pending and not quiet:
                print("compiling the forces first: seconds to minutes", file=sys.stderr)
            seconds = 0.0
            if pool.elsewhere:
                lost = _run_in_workers(spec, settings, pending, store, pool, quiet)
            else:
                seconds = _run_here(source, settings, pending, store, quiet)
        except StoppedError:
            place = f"kept in {store.folder}; the same command continues" if output is not None else "nothing is kept"
            n_done = sum(_finished(store.load(keys[p], r.replica), settings) for p, r in runs.items())
            raise InterruptedRunError(f"stopped after {n_done} of {len(pairs)} replicas, {place}") from None
        finished = {p: lost.get(keys[p]) or store.load(keys[p], run.replica) or run for p, run in runs.items()}
    rows, dataset = _collect(starts, pairs, finished, failures, spec, settings)
    return ReplicaResult(rows, dataset, n_reused, seconds)


@dataclass(frozen=True)
class _Pool:
    """Where the work is done.

    Attributes:
        workers: number of processes; 0 for this one.
        scheduler: instead, a cluster.
    """

    workers: int | None
    scheduler: str | None

    @property
    def elsewhere(self) -> bool:
        """Whether other processes do the work."""
        return bool(self.workers) or self.scheduler is not None

    def map(
        self,
        make_worker: Callable[[Any], Callable[[Any], Any]],
        spec: Any,
        tasks: Sequence[Any],
        advance: AdvanceCallback,
    ) -> Generator[TaskResult[Any], None, None]:
        """See `hesse.runtime.parallel.map_tasks`; its messages are shown beside the progress."""
        return map_tasks(
            make_worker,
            spec,
            tasks,
            workers=self.workers,
            scheduler=self.scheduler,
            on_message=lambda message: advance(0, message),
        )


def _checked_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    numbers = range(seeds) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    if isinstance(numbers, str | bytes) or not isinstance(numbers, Sequence) or len(numbers) == 0:
        raise RequestError(f"seeds: expected how many (at least 1), or a list of whole numbers, got {seeds!r}")
    for seed in numbers:
        check_whole_numbers(seeds=seed)
        if seed < 0:
            raise RequestError(f"seeds: expected numbers of zero or more, got {seed}")
    if len(set(numbers)) < len(numbers):
        raise RequestError(f"seeds: the same seed is given twice, which would be the same replica: {list(numbers)}")
    return tuple(int(seed) for seed in numbers)


@contextmanager
def _open_store(output: str | Path | None) -> Iterator[ReplicaStore]:
    if output is not None:
        with ReplicaStore.open(store_path(Path(output))) as store:
            yield store
        return
    with tempfile.TemporaryDirectory(prefix="hesse-md-") as folder:
        yield ReplicaStore(Path(folder))


def _finished(run: ReplicaRun | None, settings: ReplicaSettings) -> bool:
    return run is not None and (run.failure is not None or run.step >= settings.n_steps)


def _begin(
    starts: Sequence[Structure],
    pairs: Sequence[tuple[int, int]],
    runs: dict[tuple[int, int], ReplicaRun],
    spec: str | Engine,
    settings: ReplicaSettings,
    pool: _Pool,
    quiet: bool,
) -> dict[int, Failure]:
    """Relax the structures that have replicas without a state, and begin these. Returns structures that failed."""
    missing = sorted({i for i, seed in pairs if (i, seed) not in runs})
    failures: dict[int, Failure] = {}
    with track("relaxing", len(missing), quiet=quiet or not settings.relax or not missing) as advance, stop_signals():
        tasks = [starts[i] for i in missing]
        for done in pool.map(_make_relaxer, (spec, settings), tasks, advance) if tasks else ():
            i = missing[done.index]
            first = done.value if done.value is not None else Failure.not_started(done.error)
            if isinstance(first, Failure):
                failures[i] = first
            else:
                for number, seed in pairs:
                    if number == i and (i, seed) not in runs:
                        runs[i, seed] = ReplicaRun.begin(Replica(first, seed), settings)
            advance(1)
    return failures


def _make_relaxer(spec: tuple[str | Engine, ReplicaSettings]) -> Callable[[Structure], Structure | Failure]:
    engine, settings = as_engine(spec[0]), spec[1]

    def relax(structure: Structure) -> Structure | Failure:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the rows tell it
            return starting_geometry(structure, engine, settings)

    return relax


def _run_here(
    engine: Engine, settings: ReplicaSettings, pending: Mapping[str, ReplicaRun], store: ReplicaStore, quiet: bool
) -> float:
    """All replicas in this process. Returns the seconds of dynamics; raises StoppedError after the states are saved."""
    if not pending:
        return 0.0
    if settings.compile and isinstance(engine, PotentialEngine):
        with stop_signals():
            compile_forces(engine, [run.replica.start for run in pending.values()], max_atoms=MAX_ATOMS)
    keys = {id(run): key for key, run in pending.items()}
    total = sum(settings.n_steps - run.step for run in pending.values())
    n_failed, began = 0, time.monotonic()
    saved = began
    # A block of a model takes seconds and is finished; one of another engine may take hours.
    slow = not isinstance(engine, PotentialEngine)
    with track("dynamics (steps)", total, quiet=quiet) as advance, deferred_signals() as caught:

        def keep(run: ReplicaRun) -> None:
            nonlocal n_failed
            store.save(keys[id(run)], run)
            n_failed += run.failure is not None
            advance(max(settings.n_steps - run.step, 0), f"{n_failed} failed")  # steps that it will not take

        def go_on(live: Sequence[ReplicaRun], steps: int) -> bool:
            nonlocal saved
            advance(steps)
            if slow or caught or time.monotonic() - saved > SAVE_INTERVAL:
                for run in live:
                    if run.step:
                        store.save(keys[id(run)], run)
                saved = time.monotonic()
            return not caught

        advance_replicas(
            list(pending.values()),
            engine,
            settings,
            on_finished=keep,
            on_block=go_on,
            stop=lambda: slow and bool(caught),
        )
        if caught:
            raise StoppedError
    return time.monotonic() - began


def _run_in_workers(
    spec: str | Engine,
    settings: ReplicaSettings,
    pending: Mapping[str, ReplicaRun],
    store: ReplicaStore,
    pool: _Pool,
    quiet: bool,
) -> dict[str, ReplicaRun]:
    """The replicas in processes, which write to the folder themselves: one by one for engines, a share for models.
    Returns those whose process has died; they are not kept as finished, so that the next call tries them again."""
    lost: dict[str, ReplicaRun] = {}
    if not pending:
        return lost
    items = list(pending.items())
    n_tasks = pool.workers if pool.workers and isinstance(as_engine(spec), PotentialEngine) else len(items)
    tasks = [task for k in range(n_tasks) if (task := items[k::n_tasks])]
    with track("replicas", len(items), quiet=quiet) as advance, stop_signals():
        results = pool.map(_make_runner, (spec, settings, store.folder.absolute()), tasks, advance)
        try:
            for done in results:
                for key, run in tasks[done.index] if done.value is None else ():
                    state = store.load(key, run.replica) or run
                    if not _finished(state, settings):
                        state.failure = Failure.of_engine(done.error)
                        lost[key] = state
                advance(len(tasks[done.index]))
        finally:
            results.close()
    return lost


def _make_runner(
    spec: tuple[str | Engine, ReplicaSettings, Path],
) -> Callable[[list[tuple[str, ReplicaRun]]], bool]:
    engine, settings, store = as_engine(spec[0]), spec[1], ReplicaStore(spec[2])

    def run(task: list[tuple[str, ReplicaRun]]) -> bool:
        keys, saved = {id(r): key for key, r in task}, time.monotonic()

        def save_sometimes(live: Sequence[ReplicaRun], steps: int) -> bool:
            nonlocal saved
            if time.monotonic() - saved > SAVE_INTERVAL:
                for r in live:
                    store.save(keys[id(r)], r)
                saved = time.monotonic()
            return True

        advance_replicas(
            [r for _, r in task],
            engine,
            settings,
            on_finished=lambda r: store.save(keys[id(r)], r),
            on_block=save_sometimes,
        )
        return True

    return run


def _collect(
    starts: Sequence[Structure],
    pairs: Sequence[tuple[int, int]],
    runs: Mapping[tuple[int, int], ReplicaRun],
    failures: Mapping[int, Failure],
    spec: str | Engine,
    settings: ReplicaSettings,
) -> tuple[tuple[dict[str, Any], ...], Dataset | None]:
    """Rows and snapshots, in the order of the structures and seeds."""
    engine = as_engine(spec)
    rows: list[dict[str, Any]] = []
    frames: list[tuple[Structure, Properties]] = []
    protocol = settings.ramp or settings.ensemble
    for i, seed in pairs:
        run = runs.get((i, seed))
        if run is None:
            rows.append(replica_row(starts[i].id, seed, failures[i]))
        else:
            rows.append(run.row(settings))
            track_of_run = run.trajectory()
            for k, step in enumerate(track_of_run.steps.tolist()):
                last = run.failure is not None and step == run.step
                tag = f"md-{protocol}-failed" if last else f"md-{protocol}"
                moved = run.replica.start.with_positions(track_of_run.positions[k])
                frame = with_name(moved, starts[i], tag, f"{run.replica.id}/{step:07d}")
                frames.append((frame, energy_labels(frame, track_of_run.energies[k], track_of_run.forces[k])))
            if len(track_of_run.steps):
                rows[-1] |= extrapolation_columns(extrapolation(engine, frames[-1][0]))
        rows[-1] |= {"level": engine.level, "protocol": protocol}
    return tuple(rows), as_dataset_of(frames, spec, "dynamics")
