"""Hessians of many structures: by a label campaign, in batches by a model, or of parts of the atoms; all resumable."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from jaxtyping import Int
from numpy import ndarray as Array

from hesse.curvature import evaluate_structures
from hesse.engines import Engine, PotentialEngine, as_engine
from hesse.engines.error_estimates import attach_error_estimates
from hesse.errors import EngineError, ExecutionError, ExtrapolationWarning, HesseError, InterruptedRunError
from hesse.labelling import label, plan_labels
from hesse.pes import MinimizationResult
from hesse.pes.hessian_columns import PartialHessian, hessian_of_atoms
from hesse.pes.minimization import minimize_each
from hesse.pes.vibrational_analysis import relaxed
from hesse.potential import check_elements
from hesse.recipes.known_hessian import KnownHessian, Moving, labels_of_record, record_of_labels
from hesse.runtime.parallel import TaskResult, map_tasks
from hesse.sampling.journaled_runs import JournaledRun, run_journaled
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.structures import Request, Structure, check_cell

__all__ = ["HessianRun", "compute_hessians"]
_CHUNK = 64
"""Structures that a model computes before the journal is written."""
_CHUNK_ELEMENTS = 4_000_000
"""Elements of all Hessians of a chunk: 32 MB."""


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


Found: TypeAlias = "dict[int, KnownHessian | str]"
"""For each structure its Hessian, or why there is none."""


def compute_hessians(
    run: HessianRun,
    structures: Mapping[int, Structure],
    moving: Mapping[int, Moving],
    relaxation: Mapping[str, Any] | None,
) -> tuple[Found, int]:
    """Compute the Hessian of every structure.

    Args:
        run: engine, processes and output.
        structures: the structures by index.
        moving: the atoms that move in each; None for all.
        relaxation: options of a relaxation before; None for none.

    Returns:
        The Hessians or reasons by index, and how many an earlier run had computed.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM.
        HesseError: the engine or the files cannot be used.
    """
    hessians: Found = {}
    if relaxation is not None:
        structures, failed = _relax(run, structures, relaxation)
        hessians |= failed
    parts = {i: structure for i, structure in structures.items() if moving[i] is not None}
    whole = {i: structure for i, structure in structures.items() if moving[i] is None}
    by_model = isinstance(run.engine_object, PotentialEngine)
    n_reused = 0
    for members, compute in (
        (parts, lambda some: _partial_hessians(run, some, moving)),
        (whole, lambda some: _hessians_by_model(run, some) if by_model else _hessians_by_campaign(run, some)),
    ):
        if members:
            results, n_known = compute(members)
            hessians, n_reused = hessians | results, n_reused + n_known
    return hessians, n_reused


# --- full Hessians by engines -----------------------------------------------------------------------------------------


def _hessians_by_campaign(run: HessianRun, structures: Mapping[int, Structure]) -> tuple[Found, int]:
    indices = {structure.id: i for i, structure in structures.items()}
    n_known = 0
    if run.output is not None:
        plan = plan_labels(list(structures.values()), run.engine, run.output, probes=0, hessian=True)
        n_known = plan.n_complete
    try:
        report = label(
            list(structures.values()),
            run.engine,
            run.output,
            probes=0,
            hessian=True,
            workers=run.workers,
            scheduler=run.scheduler,
            timeout=run.timeout,
            retry_failed=run.retry_failed,
            quiet=run.quiet,
            title="Hessians",
        )
    except InterruptedRunError:
        raise
    except ExecutionError as error:  # no structure could be labeled
        return dict.fromkeys(structures, str(error)), 0
    results: Found = {indices[failure.id]: failure.reason for failure in report.failures}
    for structure, labels in report.dataset:
        results[indices[structure.id]] = KnownHessian(structure, run.level, labels=labels)
    return results, n_known


# --- full Hessians by models, many at once ----------------------------------------------------------------------------


def _hessians_by_model(run: HessianRun, structures: Mapping[int, Structure]) -> tuple[Found, int]:
    engine = run.engine_object
    assert isinstance(engine, PotentialEngine)

    def solve(tasks: list[Structure]) -> Generator[TaskResult[KnownHessian], None, None]:
        for chunk in _chunks(tasks):
            start = time.monotonic()
            results = _evaluate_chunk(engine, {i: tasks[i] for i in chunk})
            seconds = (time.monotonic() - start) / len(chunk)
            for i, result in results.items():
                failed = isinstance(result, str)
                yield TaskResult(i, None if failed else result, result if failed else "", seconds)  # type: ignore[arg-type]

    tasks = list(structures.values())
    done = run_journaled(
        solve,
        tasks,
        [search_key(structure, engine, {"kind": "hessian"}) for structure in tasks],
        lambda _, known: record_of_labels(known),
        output=run.output,
        title=f"Hessians with {run.level}",
        quiet=run.quiet,
    )
    return _by_index(
        structures, done, lambda s, record: KnownHessian(s, run.level, labels=labels_of_record(s, record))
    ), done.n_reused


def _by_index(
    structures: Mapping[int, Structure],
    done: JournaledRun,
    hessian: Callable[[Structure, FinishedSearch], KnownHessian],
) -> Found:
    """Hessians and errors by the indices of the structures."""
    indices = list(structures)
    results: Found = {indices[k]: error for k, error in done.errors.items()}
    return results | {indices[k]: hessian(structures[indices[k]], record) for k, record in done.found.items()}


def _chunks(structures: Sequence[Structure]) -> Iterator[list[int]]:
    """Indices of structures of similar size, small ones first."""
    chunk: list[int] = []
    elements = 0
    for i in sorted(range(len(structures)), key=lambda i: len(structures[i])):
        size = 9 * len(structures[i]) ** 2
        if chunk and (len(chunk) == _CHUNK or elements + size > _CHUNK_ELEMENTS):
            yield chunk
            chunk, elements = [], 0
        chunk.append(i)
        elements += size
    if chunk:
        yield chunk


def _evaluate_chunk(engine: PotentialEngine, structures: Mapping[int, Structure]) -> Found:
    """Hessians of some structures in one pass; if one of them fails, one by one."""
    hessians: Found = {}
    valid: dict[int, Structure] = {}
    for i, structure in structures.items():
        try:
            where = f'structure "{structure.id}"'
            check_elements(engine.potential, structure.numbers, where=where, name=engine.level)
            check_cell(structure)
            structure.check_no_overlap()
            valid[i] = structure
        except HesseError as error:
            hessians[i] = str(error)
    request = Request(forces=True, hessian=True)
    try:
        results = evaluate_structures(engine.potential, list(valid.values()), request) if valid else None
    except EngineError as error:
        if len(valid) == 1:
            return hessians | dict.fromkeys(valid, str(error))
        for i, structure in valid.items():
            hessians |= _evaluate_chunk(engine, {i: structure})
        return hessians
    if results is not None:
        results = attach_error_estimates(list(valid.values()), results, request)
        for k, (i, structure) in enumerate(valid.items()):
            hessians[i] = KnownHessian(structure, engine.level, labels=results.select([k]))
    return hessians


# --- relaxations and partial Hessians, one by one in processes --------------------------------------------------------


def _relax(
    run: HessianRun, structures: Mapping[int, Structure], options: Mapping[str, Any]
) -> tuple[dict[int, Structure], Found]:
    """The relaxed structures, and the reasons of those that did not relax."""
    tasks, engine = list(structures.values()), run.engine_object
    together = isinstance(engine, PotentialEngine) and (run.workers or 0) <= 1 and run.scheduler is None
    done = run_journaled(
        _together(engine, options) if together else _in_workers(run, _make_relaxer, options),
        tasks,
        [search_key(structure, engine, {"kind": "minimize", **options}) for structure in tasks],
        lambda _, result: FinishedSearch({"energy": result.energy}, {"positions": result.structure.positions}),
        output=run.output,
        title="relaxing",
        quiet=run.quiet,
    )
    indices = list(structures)
    relaxed = {
        indices[k]: tasks[k].with_positions(record.arrays["positions"], id=tasks[k].id)
        for k, record in sorted(done.found.items())
    }
    return relaxed, {indices[k]: error for k, error in done.errors.items()}


def _together(
    engine: Engine, options: Mapping[str, Any]
) -> Callable[[list[Structure]], Generator[TaskResult[MinimizationResult], None, None]]:
    """Relaxations of many structures by a model in this process."""

    def solve(tasks: list[Structure]) -> Generator[TaskResult[MinimizationResult], None, None]:
        start = time.monotonic()
        for index, result in minimize_each(tasks, engine, **options) if tasks else ():
            seconds = time.monotonic() - start
            if isinstance(result, HesseError):
                yield TaskResult(index, None, str(result), seconds)
            elif not result.converged:
                error = f'structure "{tasks[index].id}": not relaxed ({result.reason}): give more steps'
                yield TaskResult(index, None, error, seconds)
            else:
                yield TaskResult(index, result, "", seconds)

    return solve


def _in_workers(
    run: HessianRun, make_worker: Callable[[Any], Callable[[Any], Any]], spec: Any
) -> Callable[[list[Any]], Generator[TaskResult[Any], None, None]]:
    return lambda tasks: map_tasks(
        make_worker,
        (run.engine, spec),
        tasks,
        workers=run.workers,
        scheduler=run.scheduler,
        timeout=run.timeout,
    )


def _make_relaxer(spec: tuple[str | Engine, Mapping[str, Any]]) -> Callable[[Structure], MinimizationResult]:
    engine, options = as_engine(spec[0]), spec[1]

    def relax(structure: Structure) -> MinimizationResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            return relaxed(structure, engine, **options)

    return relax


def _partial_hessians(
    run: HessianRun, structures: Mapping[int, Structure], moving: Mapping[int, Moving]
) -> tuple[Found, int]:
    tasks = [(structure, array) for i, structure in structures.items() if (array := moving[i]) is not None]
    done = run_journaled(
        _in_workers(run, _make_partial, None),
        tasks,
        [search_key(s, run.engine_object, {"kind": "partial", "atoms": array.tolist()}) for s, array in tasks],
        lambda _, record: record,
        output=run.output,
        title=f"partial Hessians with {run.level}",
        quiet=run.quiet,
    )

    def hessian(structure: Structure, record: FinishedSearch) -> KnownHessian:
        row, arrays = record.row, record.arrays
        part = PartialHessian(row["energy"], arrays["forces"], arrays["hessian"], row["hessian_error"])
        return KnownHessian(structure, run.level, partial=part)

    return _by_index(structures, done, hessian), done.n_reused


def _make_partial(
    spec: tuple[str | Engine, None],
) -> Callable[[tuple[Structure, Int[Array, "m"]]], FinishedSearch]:
    engine = as_engine(spec[0])

    def compute(task: tuple[Structure, Int[Array, "m"]]) -> FinishedSearch:
        part = hessian_of_atoms(task[0], engine, task[1])
        row = {"energy": part.energy, "hessian_error": part.error}
        return FinishedSearch(row, {"forces": part.forces, "hessian": part.hessian})

    return compute
