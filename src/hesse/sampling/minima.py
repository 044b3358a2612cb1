"""Minima near many structures: a model relaxes them together, other engines over worker processes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from hesse.datasets import StructuresLike, as_structures
from hesse.engines import Engine, EngineLike, PotentialEngine, as_engine, engine_for_workers
from hesse.errors import ExtrapolationWarning, HesseError, check_positive
from hesse.pes import (
    MinimizationResult,
    MinimumResult,
    bond_name,
    displacement,
    extrapolation_columns,
    minimize,
    minimize_each,
    remove_imaginary_modes,
)
from hesse.runtime.parallel import TaskResult
from hesse.sampling.collected_searches import collect_searches
from hesse.sampling.journaled_runs import in_workers, run_journaled
from hesse.sampling.reactions import ReactionResult
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.structures import Structure

__all__ = ["search_minima"]


def search_minima(
    structures: StructuresLike,
    engine: EngineLike,
    output: str | Path | None = None,
    *,
    remove_imaginary: bool = False,
    workers: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> ReactionResult:
    """Relax every structure; cells stay as they are.

    Args:
        structures: the structures.
        engine: a name or the path of a model; an object works in this process.
        output: file for the results, which is not written here: each finished relaxation is kept in
            `OUTPUT.searches.jsonl` at once, and the same call does not repeat it. None keeps nothing.
        remove_imaginary: displace along imaginary modes and relax again, see `hesse.remove_imaginary_modes`.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A model works in this
            process on many structures in one pass, unless there are several processes.
        quiet: no progress.
        **options: those of `hesse.minimize`: fmax, steps, optimizer.

    Returns:
        The relaxed structures with energies and forces; the last geometries of those that did not converge; and a row
        for each structure.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        HesseError: there is no such engine, a wrong option, or a journal that cannot be read or written.
    """
    check_positive(options, "fmax", "steps")
    spec, workers = engine_for_workers(engine, workers, None)
    starts, model = as_structures(structures), as_engine(spec)
    keys = [search_key(s, model, options | {"task": "minimum", "remove_imaginary": remove_imaginary}) for s in starts]
    if isinstance(model, PotentialEngine) and (workers or 0) <= 1:
        solve = _together(model, options, remove_imaginary)
    else:
        solve = in_workers(_make_worker, (spec, options, remove_imaginary), workers)
    run = run_journaled(
        solve,
        starts,
        keys,
        lambda i, result: _finished(starts[i], result),
        output=None if output is None else Path(output),
        title="minima",
        quiet=quiet,
    )
    return collect_searches(starts, run, spec, "relaxation")


def _together(
    engine: PotentialEngine, options: dict[str, Any], remove_imaginary: bool
) -> Callable[[list[Structure]], Generator[TaskResult[MinimizationResult | MinimumResult], None, None]]:
    """Relaxations of all structures at once by a model in this process."""

    def solve(tasks: list[Structure]) -> Generator[TaskResult[MinimizationResult | MinimumResult], None, None]:
        start = time.monotonic()
        if not tasks:
            return
        for index, result in minimize_each(tasks, engine, **options):
            value: MinimizationResult | MinimumResult | None
            value, error = (None, str(result)) if isinstance(result, HesseError) else (result, "")
            if remove_imaginary and isinstance(value, MinimizationResult) and value.converged:
                try:
                    value = _without_imaginary(value.structure, engine, options)
                except HesseError as failure:
                    value, error = None, str(failure)
            yield TaskResult(index, value, error, time.monotonic() - start)

    return solve


def _make_worker(
    spec: tuple[str | Engine, dict[str, Any], bool],
) -> Callable[[Structure], MinimizationResult | MinimumResult]:
    engine, options, remove_imaginary = as_engine(spec[0]), *spec[1:]

    def relax(structure: Structure) -> MinimizationResult | MinimumResult:
        if remove_imaginary:
            return _without_imaginary(structure, engine, options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the rows tell it
            return minimize(structure, engine, **options)

    return relax


def _without_imaginary(structure: Structure, engine: Engine, options: dict[str, Any]) -> MinimumResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # the rows tell it
        return remove_imaginary_modes(structure, engine, **options)


def _finished(start: Structure, result: MinimizationResult | MinimumResult) -> FinishedSearch:
    """The result as it is kept, with the row that tells of it."""
    run = result.minimization if isinstance(result, MinimumResult) else result
    moved = displacement(start, run.structure)
    row: dict[str, Any] = {"id": start.id, "converged": result.converged, "reason": result.reason}
    row |= {"energy": run.energy, "fmax": run.fmax, "steps": run.steps, "rmsd": moved.rmsd}
    if isinstance(result, MinimumResult):
        row |= {"rounds": result.rounds, "gradients": result.n_gradients, "hessians": result.n_hessians}
        row["n_imaginary"] = None if result.modes is None else result.modes.n_imaginary
        has_modes = result.modes is not None and len(result.modes) > 0
        row["lowest_frequency"] = float(result.modes.frequencies[0]) if has_modes and result.modes else None
    row["bonds_formed"] = [bond_name(start, bond) for bond in moved.formed]
    row["bonds_broken"] = [bond_name(start, bond) for bond in moved.broken]
    row |= extrapolation_columns(run.extrapolation)
    return FinishedSearch(row, {"positions": run.structure.positions, "forces": np.asarray(run.forces)})
