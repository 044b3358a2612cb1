"""Comparison of two potentials on the same test sets: the input of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from hesse.errors import RequestError
from hesse.evaluation import (
    Evaluation,
    VibrationalErrors,
    property_names,
    property_unit,
    relative_rmse_change,
    vibrational_errors,
)
from hesse.reports.literature import PUBLISHED_CHANGES, PUBLISHED_SOURCE, PublishedChange

__all__ = ["ComparedMetric", "ComparedModel", "Comparison"]


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """One of the potentials compared.

    Attributes:
        name: name in the report, such as "E-F".
        evaluations: one per test set.
        log: rows of its training log (`metrics.jsonl`); may be empty.
    """

    name: str
    evaluations: tuple[Evaluation, ...]
    log: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ComparedMetric:
    """One property of one test set, for both potentials.

    Attributes:
        dataset: name of the test set.
        property: as in the rows of an evaluation.
        metric: rmse or mae.
        unit: unit of the values.
        n: number of label values averaged.
        baseline: error of the first potential.
        other: error of the second potential.
        percent: 100 (other/baseline − 1); negative is better. None if the error of the baseline is zero.
        low, high: 95 % interval of `percent` under resampling of the test molecules (RMSE only).
        noise_floor: noise floor of the labels, if known.
    """

    dataset: str
    property: str
    metric: str
    unit: str
    n: int
    baseline: float
    other: float
    percent: float | None
    low: float | None
    high: float | None
    noise_floor: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """A baseline, and the potential that is compared with it.

    Attributes:
        title: title of the report.
        facts: further facts (date, machine, versions, seeds, data hash, sizes, weights), shown in this order.
        baseline: usually trained on energies and forces.
        other: usually trained on Hessian-vector products too.
        published: changes from the literature, quoted for comparison with the measured ones.
        published_source: their source.

    Raises:
        RequestError: the two were not evaluated on the same test sets in the same order.
    """

    title: str
    facts: Mapping[str, str]
    baseline: ComparedModel
    other: ComparedModel
    published: Sequence[PublishedChange] = field(default=PUBLISHED_CHANGES)
    published_source: str = PUBLISHED_SOURCE

    def __post_init__(self) -> None:
        names = [[e.name for e in side.evaluations] for side in (self.baseline, self.other)]
        if names[0] != names[1] or not names[0] or len(set(names[0])) != len(names[0]):
            raise RequestError(
                f"a comparison needs the same test sets, each once, for both potentials; {self.baseline.name} was "
                f"evaluated on {names[0]}, {self.other.name} on {names[1]}"
            )

    @property
    def evaluation_pairs(self) -> list[tuple[Evaluation, Evaluation]]:
        """Both evaluations of each test set."""
        return list(zip(self.baseline.evaluations, self.other.evaluations, strict=True))

    @cached_property
    def rows(self) -> tuple[ComparedMetric, ...]:
        """Errors of both potentials, for every test set, property and metric that both have."""
        return tuple(
            row
            for old, new in self.evaluation_pairs
            for prop in property_names()
            for metric in ("rmse", "mae")
            if (row := _compare_metric(old, new, prop, metric)) is not None
        )

    def row(self, dataset: str, property: str, metric: str = "rmse") -> ComparedMetric | None:
        """One row of the comparison.

        Args:
            dataset: name of the test set.
            property: energy, energy_per_atom, forces, hvp or hessian.
            metric: rmse or mae.

        Returns:
            The row, or None if either potential lacks it.
        """
        key = (dataset, property, metric)
        return next((row for row in self.rows if (row.dataset, row.property, row.metric) == key), None)

    @cached_property
    def vibrations(self) -> dict[str, tuple[VibrationalErrors, VibrationalErrors]]:
        """Errors of frequencies and zero-point energies of both potentials, by test set, for the test sets that contain
        relaxed structures with Hessians."""
        pairs = {old.name: (vibrational_errors(old), vibrational_errors(new)) for old, new in self.evaluation_pairs}
        return {name: (old, new) for name, (old, new) in pairs.items() if old is not None and new is not None}

    def summary(self) -> dict[str, Any]:
        """Everything but the figures, as plain values for a JSON file.

        Returns:
            A dictionary; `draw_summary` draws it.
        """
        return {
            "title": self.title,
            "facts": dict(self.facts),
            "baseline": self.baseline.name,
            "other": self.other.name,
            "lines": [asdict(row) for row in self.rows],
            "rows": {
                side.name: [asdict(row) for e in side.evaluations for row in e.rows]
                for side in (self.baseline, self.other)
            },
            "vibrations": {
                name: {self.baseline.name: asdict(old), self.other.name: asdict(new)}
                for name, (old, new) in self.vibrations.items()
            },
            "published": [asdict(p) for p in self.published],
            "published_source": self.published_source,
        }


def _compare_metric(old: Evaluation, new: Evaluation, property: str, metric: str) -> ComparedMetric | None:
    before, after = old.row(property, metric), new.row(property, metric)
    if before is None or after is None:
        return None
    percent = None if before.value == 0.0 else 100.0 * (after.value / before.value - 1.0)
    interval = relative_rmse_change(old, new, property) if metric == "rmse" else None
    low, high = (None, None) if interval is None else (_finite(interval.ci_low), _finite(interval.ci_high))
    floor = old.row(property, "noise_floor")
    return ComparedMetric(
        dataset=old.name,
        property=property,
        metric=metric,
        unit=property_unit(property),
        n=before.n,
        baseline=before.value,
        other=after.value,
        percent=percent,
        low=low,
        high=high,
        noise_floor=None if floor is None else floor.value,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
