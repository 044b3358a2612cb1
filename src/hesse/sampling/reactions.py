"""Reaction paths through many transition states, over worker processes; results of them and of saddle searches."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse._version import __version__
from hesse.datasets import Dataset
from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.errors import ExtrapolationWarning, check_positive
from hesse.pes import IRCResult, MinimizationResult, extrapolation_columns, farthest, irc, minimize
from hesse.runtime.short_repr import ShortRepr
from hesse.sampling.journaled_runs import in_workers, run_journaled
from hesse.sampling.samples import energy_labels
from hesse.sampling.sampling_result import SamplingFailure
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.sampling.starts import KnownLabels, stored_hessians
from hesse.structures import Properties, Structure

__all__ = ["ReactionResult", "follow_paths"]

Options: TypeAlias = dict[str, Any]
PathTask: TypeAlias = "tuple[Structure, Float[Array, 'n 3 n 3'] | None]"
PathRun: TypeAlias = tuple[IRCResult, list[MinimizationResult]]


@dataclass(frozen=True, eq=False, repr=False)
class ReactionResult(ShortRepr):
    """Saddle points or reaction paths of several structures.

    Attributes:
        dataset: the geometries that were found, with energies and forces (saddle points also with Hessians); None if
            there are none.
        rows: one per start, in order: JSON values by name; `converged`, and the `reason` if it did not.
        failures: starts without a saddle point or path.
        failed: the last geometries of saddle searches that failed, with the tag "failed"; None if there are none.
        n_reused: number of searches whose results were kept from an earlier run.
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
    output: str | Path | None = None,
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
        output: file for the results, which is not written here: each finished path is kept in `OUTPUT.searches.jsonl`
            at once, and the same call does not repeat it. None keeps nothing.
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
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        HesseError: there is no such engine, a wrong option, or a journal that cannot be read or written.
    """
    check_positive(options, "step", "steps", "fmax")
    spec, workers = engine_for_workers(engine, workers, None)
    model = as_engine(spec)
    known = stored_hessians(transition_states, spec) if reuse else [KnownLabels()] * len(transition_states)
    tasks = [(s, k.hessian) for s, k in zip(transition_states.structures, known, strict=True)]
    requested = options | {"task": "path", "relax_ends": relax_ends}
    keys = [search_key(start, model, requested | {"hessian": _digest(hessian)}) for start, hessian in tasks]
    run = run_journaled(
        in_workers(_path_worker, (spec, options, relax_ends), workers),
        tasks,
        keys,
        lambda i, structures: _finished(tasks[i][0], *structures),
        output=None if output is None else Path(output),
        title="paths",
        quiet=quiet,
    )
    structures: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[SamplingFailure] = []
    for i, (start, _) in enumerate(tasks):
        if i not in run.found:
            rows.append({"id": start.id, "converged": False, "reason": run.errors[i]})
            failures.append(SamplingFailure(start.id, run.errors[i]))
            continue
        rows.append(dict(run.found[i].row))
        structures += _path_structures(start, run.found[i])
    dataset = as_dataset_of(structures, spec, "reaction paths")
    return ReactionResult(dataset, tuple(rows), tuple(failures), n_reused=run.n_reused)


def _digest(hessian: Float[Array, "n 3 n 3"] | None) -> str:
    """Identity of a Hessian that a path starts with."""
    return (
        "" if hessian is None else hashlib.blake2b(np.ascontiguousarray(hessian).tobytes(), digest_size=8).hexdigest()
    )


def _finished(start: Structure, path: IRCResult, ends: Sequence[MinimizationResult]) -> FinishedSearch:
    """The result as it is kept, with the row that tells of it."""
    arrays = {
        "positions": np.array([point.structure.positions for point in path.points]),
        "energies": np.array([point.energy for point in path.points]),
        "forces": np.array([point.forces for point in path.points]),
        "end_positions": np.array([end.structure.positions for end in ends]),
        "end_energies": np.array([end.energy for end in ends]),
    }
    return FinishedSearch(_path_row(start, path, ends), arrays)


def _path_structures(start: Structure, search: FinishedSearch) -> list[tuple[Structure, Properties]]:
    """The points of a path and its relaxed ends, as structures with labels."""
    group, arrays, n_backward = start.group or start.id, search.arrays, search.row["backward_points"]
    structures = []
    numbers = range(-n_backward, len(arrays["positions"]) - n_backward)
    for k, x, energy, forces in zip(numbers, arrays["positions"], arrays["energies"], arrays["forces"], strict=True):
        point = replace(start.with_positions(x, id=f"{start.id}/irc/{k:+05d}", tag="irc"), group=group)
        structures.append((point, energy_labels(point, float(energy), forces)))
    outer = [number for number in (numbers[0], numbers[-1]) if number != 0]  # a half without points has no end
    for k, x, energy in zip(outer, arrays["end_positions"], arrays["end_energies"], strict=False):
        end = replace(start.with_positions(x, id=f"{start.id}/irc/{k:+05d}/relaxed", tag="end"), group=group)
        structures.append((end, energy_labels(end, float(energy))))
    return structures


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
    return row | extrapolation_columns(farthest(results))


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


def as_dataset_of(pairs: Sequence[tuple[Structure, Properties]], engine: str | Engine, made_by: str) -> Dataset | None:
    """A data set with the level of theory of an engine; None without structures."""
    if not pairs:
        return None
    metadata = {"level": as_engine(engine).level, "made_by": made_by, "code_version": __version__}
    if isinstance(engine, str):
        metadata["engine"] = engine
    return Dataset.from_pairs(pairs, **metadata)
