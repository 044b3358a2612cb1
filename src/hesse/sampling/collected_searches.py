"""Results of searches that end in one geometry each: minima and saddle points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hesse.engines import Engine
from hesse.sampling.journaled_runs import JournaledRun
from hesse.sampling.reactions import ReactionResult, as_dataset_of
from hesse.sampling.sampling_result import SamplingFailure
from hesse.structures import Properties, Structure

__all__ = ["collect_searches"]


def collect_searches(
    starts: Sequence[Structure], run: JournaledRun, engine: str | Engine, made_by: str
) -> ReactionResult:
    """The result of searches that end in one geometry each.

    Args:
        starts: where they started.
        run: what they found: rows with an energy, and arrays with positions, forces and perhaps a Hessian.
        engine: the engine.
        made_by: for the metadata of the data set.

    Returns:
        The geometries that converged, those that did not, and a row for each, in the order of the starts.
    """
    saddles: list[tuple[Structure, Properties]] = []
    failed: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[SamplingFailure] = []
    for i, start in enumerate(starts):
        search = run.found.get(i)
        if search is None:
            rows.append({"id": start.id, "converged": False, "reason": run.errors[i]})
            failures.append(SamplingFailure(start.id, run.errors[i]))
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
    return ReactionResult(
        as_dataset_of(saddles, engine, made_by),
        tuple(rows),
        tuple(failures),
        as_dataset_of(failed, engine, f"{made_by} (failed)"),
        run.n_reused,
    )
