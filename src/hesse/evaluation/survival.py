"""Statistics of replicas of molecular dynamics, as rows of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from hesse.datasets import Dataset
from hesse.evaluation.averages import Average, MetricRow, average_row
from hesse.evaluation.reaction_errors import REACTION_TAGS
from hesse.pes.md_survival import survival_of_rows

__all__ = ["starting_molecules", "survival_metrics"]


def starting_molecules(dataset: Dataset) -> list[int]:
    """Choose the structures from which dynamics starts: one of each group, no transition states.

    Args:
        dataset: the structures.

    Returns:
        Indices: of every group the first structure that is no transition state (the first one if there is nothing
        else), structures without a group all.
    """
    chosen: dict[str, int] = {}
    for index, structure in enumerate(dataset.structures):
        name = f"group:{structure.group}" if structure.group else f"id:{structure.id}"
        known = chosen.get(name)
        if known is None or (_is_saddle(dataset, known) and not _is_saddle(dataset, index)):
            chosen[name] = index
    return sorted(chosen.values())


def _is_saddle(dataset: Dataset, index: int) -> bool:
    return REACTION_TAGS.get(dataset.structures[index].tag) == "saddle"


def survival_metrics(rows: Sequence[Mapping[str, Any]], name: str, *, intervals: bool = True) -> list[MetricRow]:
    """How many replicas survive a ramp of temperatures, and to which temperature.

    Args:
        rows: those of `hesse.run_replicas`.
        name: name of the data set in the rows.
        intervals: with 95 % intervals under another choice of molecules.

    Returns:
        Rows with these properties and metrics.

        - dynamics: fraction_started, molecules that relax to a minimum of the potential with the bonds of the input;
          fraction_survived, replicas that reach the end of the ramp: of those started, and of molecules whose bonds
          changed in the relaxation, which counts as a failure;
        - failure_temperature: mean, K, of the replicas that were started; those that survive count with the last
          temperature of the ramp, so that it is a lower limit then.
    """
    started: dict[str, bool] = {}
    for row in rows:
        started[row["structure"]] = row["temperature"] is not None
    molecules = np.array([float(value) for value in started.values()])
    result = [
        _row("dynamics", "fraction_started", "1", molecules, np.arange(len(molecules)), name, intervals, fraction=True)
    ]
    counted = [row for row in rows if row["time"] is not None]
    curve = survival_of_rows(counted)
    if curve is not None:
        survived = np.array([float(row["survived"]) for row in counted])
        total = _row(
            "dynamics", "fraction_survived", "1", survived, _molecules(counted), name, intervals, fraction=True
        )
        if total is not None and total.ci_low is not None:
            # The band of the curve at its end: times tell more of the correlation within molecules than their ends.
            total = replace(total, ci_low=float(curve.low[-1]), ci_high=float(curve.high[-1]))
        result.append(total)
    moved = [row for row in counted if row["temperature"] is not None]
    if moved:
        temperatures = np.array([float(row["temperature"]) for row in moved])
        result.append(_row("failure_temperature", "mean", "K", temperatures, _molecules(moved), name, intervals))
    return [row for row in result if row is not None]


def _molecules(rows: Sequence[Mapping[str, Any]]) -> Int[ndarray, "n"]:
    """The number of the molecule of each replica."""
    numbers: Int[ndarray, "n"] = np.unique([row["structure"] for row in rows], return_inverse=True)[1]
    return numbers


def _row(
    prop: str,
    metric: str,
    unit: str,
    values: Float[ndarray, "n"],
    groups: Int[ndarray, "n"],
    name: str,
    intervals: bool,
    *,
    fraction: bool = False,
) -> MetricRow | None:
    ones = np.ones(len(values))
    average = Average(prop, metric, unit, values, ones, ones.astype(np.int64), fraction=fraction)
    return average_row(average, name, "", ones.astype(bool), groups if intervals else None)
