"""Saddle points of many guesses, over worker processes, with a journal by which an interrupted run is continued."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hesse.datasets import StructuresLike, as_structures
from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.errors import ExtrapolationWarning
from hesse.pes import SaddleResult, atom_name, bond_name, saddle
from hesse.sampling.journaled_runs import run_journaled
from hesse.sampling.reactions import ReactionResult, as_dataset_of, extrapolation_columns
from hesse.sampling.runner import SamplingFailure
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.structures import Properties, Structure

__all__ = ["search_saddles"]


def search_saddles(
    guesses: StructuresLike,
    engine: EngineLike,
    output: str | Path | None = None,
    *,
    workers: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> ReactionResult:
    """Search a saddle point near each guess.

    Args:
        guesses: the structures.
        engine: a name or the path of a model; an object works in this process.
        output: file for the results, which is not written here: each finished search is kept in `OUTPUT.searches.jsonl`
            at once, and the same call does not repeat it. None keeps nothing.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A structure that kills
            its process becomes a failure.
        quiet: no progress.
        **options: those of `hesse.saddle`: method, fmax, steps, trust.

    Returns:
        The saddle points, with energies, forces and Hessians; the last geometries of searches that failed; and a row
        for each guess that tells how far its search went.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        HesseError: there is no such engine, a wrong option, or a journal that cannot be read or written.
    """
    spec, workers = engine_for_workers(engine, workers, None)
    starts, model = as_structures(guesses), as_engine(spec)
    keys = [search_key(start, model, options) for start in starts]
    run = run_journaled(
        _make_searcher,
        (spec, options),
        starts,
        keys,
        lambda i, result: _finished(starts[i], result),
        output=None if output is None else Path(output),
        title="saddle points",
        workers=workers,
        quiet=quiet,
    )
    return _collect(starts, run.found, run.errors, spec, run.n_reused)


def _collect(
    starts: Sequence[Structure],
    found: Mapping[int, FinishedSearch],
    errors: Mapping[int, str],
    engine: str | Engine,
    n_reused: int,
) -> ReactionResult:
    """The result of all searches, in the order of the guesses."""
    saddles: list[tuple[Structure, Properties]] = []
    failed: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[SamplingFailure] = []
    for i, start in enumerate(starts):
        search = found.get(i)
        if search is None:
            rows.append({"id": start.id, "converged": False, "reason": errors[i]})
            failures.append(SamplingFailure(start.id, errors[i]))
            continue
        row = dict(search.row)
        rows.append(row)
        arrays = search.arrays
        moved = start.with_positions(arrays["positions"], id=start.id)
        labels = Properties.single(
            len(start), energy=row["energy"], forces=arrays["forces"], hessian=arrays.get("hessian")
        )
        if row["converged"]:
            saddles.append((moved, labels))
        else:
            failures.append(SamplingFailure(start.id, row["reason"]))
            failed.append((replace(moved, tag="failed"), labels))
    made_by = "saddle search"
    return ReactionResult(
        as_dataset_of(saddles, engine, made_by),
        tuple(rows),
        tuple(failures),
        as_dataset_of(failed, engine, f"{made_by} (failed)"),
        n_reused,
    )


def _make_searcher(spec: tuple[str | Engine, dict[str, Any]]) -> Callable[[Structure], SaddleResult]:
    engine = as_engine(spec[0])

    def search(structure: Structure) -> SaddleResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the rows tell it
            return saddle(structure, engine, **spec[1])

    return search


def _finished(start: Structure, result: SaddleResult) -> FinishedSearch:
    """The result as it is kept, with the row that tells of it."""
    moved = result.displacement
    row: dict[str, Any] = {"id": start.id, "converged": result.converged, "reason": result.reason}
    row |= {name: getattr(result, name) for name in ("energy", "fmax", "steps")}
    row["hessians"] = result.n_hessians
    if result.modes is not None and len(result.modes):
        row["imaginary"] = float(result.modes.frequencies[0])
        row["mode_atoms"] = [atom_name(start, i) for i in result.mode_atoms]
    row |= {"rmsd": moved.rmsd, "energy_change": result.energy_change}
    row["bonds_formed"] = [bond_name(start, bond) for bond in moved.formed]
    row["bonds_broken"] = [bond_name(start, bond) for bond in moved.broken]
    row |= extrapolation_columns(result.extrapolation)
    arrays = {"positions": result.structure.positions, "forces": np.asarray(result.forces)}
    if result.hessian is not None:
        arrays["hessian"] = np.asarray(result.hessian)
    return FinishedSearch(row, arrays)
