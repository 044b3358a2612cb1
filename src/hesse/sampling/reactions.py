"""Transition states of many guesses, and the reaction paths through many transition states, over worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from jaxtyping import Float
from numpy import ndarray as Array

from hesse._version import __version__
from hesse.datasets import Dataset, StructuresLike, as_structures
from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.pes import IRCResult, MinimizationResult, SaddleResult, irc, minimize, saddle
from hesse.runtime.parallel import TaskResult, map_tasks
from hesse.runtime.progress import track
from hesse.sampling.runner import (
    KnownLabels,
    SamplingFailure,
    energy_labels,
    stored_hessians,
)
from hesse.structures import Properties, Structure

__all__ = ["ReactionResult", "follow_paths", "search_saddles"]

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
    """

    dataset: Dataset | None
    rows: tuple[dict[str, Any], ...]
    failures: tuple[SamplingFailure, ...]


def search_saddles(
    guesses: StructuresLike,
    engine: EngineLike,
    *,
    workers: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> ReactionResult:
    """Search a saddle point near each guess.

    Args:
        guesses: the structures.
        engine: a name or the path of a model; an object works in this process.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A structure that kills
            its process becomes a failure.
        quiet: no progress.
        **options: those of `hesse.saddle`: method, fmax, steps, trust.

    Returns:
        The saddle points, with energies, forces and Hessians.

    Raises:
        HesseError: there is no such engine, or a wrong option.
    """
    spec, workers = engine_for_workers(engine, workers, None)
    starts = as_structures(guesses)
    found: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[SamplingFailure] = []
    for start, done in _run_all(_saddle_worker, (spec, options), starts, "saddle points", workers, quiet):
        result: SaddleResult | None = done.value
        reason = done.error if result is None else result.reason
        rows.append({"id": start.id, "converged": not reason, "reason": reason})
        if reason:
            failures.append(SamplingFailure(start.id, reason))
        if result is None:
            continue
        rows[-1] |= {name: getattr(result, name) for name in ("energy", "fmax", "steps")}
        rows[-1]["hessians"] = result.n_hessians
        if not reason and result.modes is not None:
            rows[-1]["imaginary"] = float(result.modes.frequencies[0])
            labels = Properties.single(len(start), energy=result.energy, forces=result.forces, hessian=result.hessian)
            found.append((result.structure, labels))
    return _result(found, rows, failures, spec, "saddle search")


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
        transition_states: the structures, as from `search_saddles`.
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
    return _result(found, rows, failures, spec, "reaction paths")


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
    return row


def _saddle_worker(spec: tuple[str | Engine, Options]) -> Callable[[Structure], SaddleResult]:
    engine = as_engine(spec[0])
    return lambda structure: saddle(structure, engine, **spec[1])


def _path_worker(spec: tuple[str | Engine, Options, bool]) -> Callable[[PathTask], PathRun]:
    engine, options, relax_ends = as_engine(spec[0]), *spec[1:]

    def follow(task: PathTask) -> PathRun:
        structure, hessian = task
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


def _result(
    found: Sequence[tuple[Structure, Properties]],
    rows: Sequence[dict[str, Any]],
    failures: Sequence[SamplingFailure],
    engine: str | Engine,
    made_by: str,
) -> ReactionResult:
    """The result, and its data set with the level of theory."""
    metadata = {"level": as_engine(engine).level, "made_by": made_by, "code_version": __version__}
    if isinstance(engine, str):
        metadata["engine"] = engine
    dataset = Dataset.from_pairs(found, **metadata) if found else None
    return ReactionResult(dataset, tuple(rows), tuple(failures))
