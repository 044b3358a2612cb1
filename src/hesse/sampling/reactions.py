"""Reaction paths through many transition states, over worker processes; results of them and of saddle searches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from jaxtyping import Float
from numpy import ndarray as Array

from hesse._version import __version__
from hesse.datasets import Dataset
from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.errors import ExtrapolationWarning
from hesse.pes import IRCResult, MinimizationResult, irc, minimize
from hesse.runtime.parallel import TaskResult, map_tasks
from hesse.runtime.progress import track
from hesse.sampling.runner import (
    KnownLabels,
    SamplingFailure,
    energy_labels,
    stored_hessians,
)
from hesse.structures import Extrapolation, Properties, Structure

__all__ = ["ReactionResult", "follow_paths"]

Options: TypeAlias = dict[str, Any]
PathTask: TypeAlias = "tuple[Structure, Float[Array, 'n 3 n 3'] | None]"
PathRun: TypeAlias = tuple[IRCResult, list[MinimizationResult]]


@dataclass(frozen=True, eq=False)
class ReactionResult:
    """Saddle points or reaction paths of several structures.

    Attributes:
        dataset: the geometries that were found, with energies and forces (saddle points also with Hessians); None if
            there are none.
        rows: one per start, in order: JSON values by name; `converged`, and the `reason` if it did not.
        failures: starts without a saddle point or path.
        failed: the last geometries of saddle searches that failed, with the tag "failed"; None if there are none.
        n_reused: number of saddle searches whose results were kept from an earlier run.
    """

    dataset: Dataset | None
    rows: tuple[dict[str, Any], ...]
    failures: tuple[SamplingFailure, ...]
    failed: Dataset | None = None
    n_reused: int = 0


def follow_paths(
    transition_states: Dataset,
    engine: EngineLike,
    *,
    reuse: bool = True,
    relax_ends: bool = False,
    workers: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> ReactionResult:
    """Follow the reaction path through each transition state.

    Args:
        transition_states: the structures, as from `hesse.sampling.search_saddles`.
        engine: a name or the path of a model; an object works in this process.
        reuse: start with the Hessians of the data set.
        relax_ends: also relax both ends, to 0.005 eV/Å.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A structure that kills
            its process becomes a failure.
        quiet: no progress.
        **options: those of `hesse.irc`: step, steps, fmax, directions.

    Returns:
        The points of all paths (tag `irc`) with energies and forces, and the relaxed ends (tag `end`) with energies;
        all in the group of their transition state.

    Raises:
        RequestError: Hessians of another level of theory.
        HesseError: there is no such engine, or a wrong option.
    """
    spec, workers = engine_for_workers(engine, workers, None)
    known = stored_hessians(transition_states, spec) if reuse else [KnownLabels()] * len(transition_states)
    tasks = [(s, k.hessian) for s, k in zip(transition_states.structures, known, strict=True)]
    found: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[SamplingFailure] = []
    for (start, _), done in _run_all(_path_worker, (spec, options, relax_ends), tasks, "paths", workers, quiet):
        if done.value is None:
            rows.append({"id": start.id, "converged": False, "reason": done.error})
            failures.append(SamplingFailure(start.id, done.error))
            continue
        path, ends = done.value
        group = start.group or start.id
        for point in path.points:
            labels = energy_labels(point.structure, point.energy, point.forces)
            found.append((replace(point.structure, group=group, tag="irc"), labels))
        for end in ends:
            found.append((replace(end.structure, group=group, tag="end"), energy_labels(end.structure, end.energy)))
        rows.append(_path_row(start, path, ends))
    return ReactionResult(as_dataset_of(found, spec, "reaction paths"), tuple(rows), tuple(failures))


def _path_row(start: Structure, path: IRCResult, ends: Sequence[MinimizationResult]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": start.id, "converged": path.converged, "reason": "", "gradients": path.n_gradients}
    for name, half, end in (
        ("forward", path.forward, path.forward_end),
        ("backward", path.backward, path.backward_end),
    ):
        last = half[-1].energy if half else path.saddle.energy
        row |= {f"{name}_points": len(half), f"{name}_end": end, f"{name}_drop": path.saddle.energy - last}
    if not path.converged:
        row["reason"] = "a half of the path did not reach a minimum: give more --steps"
    if ends:
        row["relaxed_ends"] = [run.energy - path.saddle.energy for run in ends]
    results = [path.extrapolation, *(end.extrapolation for end in ends)]
    compared = [found for found in results if found is not None]
    return row | extrapolation_columns(max(compared, key=lambda found: found.grade, default=None))


def extrapolation_columns(found: Extrapolation | None) -> dict[str, Any]:
    """What is told of a comparison with the training data of a model, as JSON values; nothing without one."""
    if found is None:
        return {}
    grade = found.grade if math.isfinite(found.grade) else None
    return {"outside_training": found.outside, "extrapolation_grade": grade, "extrapolation": found.reason}


def _path_worker(spec: tuple[str | Engine, Options, bool]) -> Callable[[PathTask], PathRun]:
    engine, options, relax_ends = as_engine(spec[0]), *spec[1:]

    def follow(task: PathTask) -> PathRun:
        structure, hessian = task
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the rows tell it
            path = irc(structure, engine, hessian=hessian, **options)
            halves = [half[-1].structure for half in (path.backward, path.forward) if half] if relax_ends else []
            return path, [minimize(end.with_positions(end.positions, id=f"{end.id}/relaxed"), engine) for end in halves]

    return follow


def _run_all(
    make_worker: Callable[[Any], Callable[[Any], Any]],
    spec: Any,
    tasks: Sequence[Any],
    title: str,
    workers: int | None,
    quiet: bool,
) -> list[tuple[Any, TaskResult[Any]]]:
    """Each task with its result, in the order of the tasks."""
    results: dict[int, TaskResult[Any]] = {}
    with track(title, len(tasks), quiet=quiet) as advance:
        for result in map_tasks(make_worker, spec, tasks, workers=workers):
            results[result.index] = result
            advance(1)
    return [(task, results[k]) for k, task in enumerate(tasks)]


def as_dataset_of(pairs: Sequence[tuple[Structure, Properties]], engine: str | Engine, made_by: str) -> Dataset | None:
    """A data set with the level of theory of an engine; None without structures."""
    if not pairs:
        return None
    metadata = {"level": as_engine(engine).level, "made_by": made_by, "code_version": __version__}
    if isinstance(engine, str):
        metadata["engine"] = engine
    return Dataset.from_pairs(pairs, **metadata)
