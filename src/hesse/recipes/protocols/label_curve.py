"""Errors against the number of labels: means and scatter over seeds, as rows and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["CurvePoint", "curve_points", "curve_table"]


@dataclass(frozen=True)
class CurvePoint:
    """One number of one variant, over seeds.

    Attributes:
        variant: name of the variant (rung, way to pick).
        labels: number of expensive labels; None for models without.
        dataset: name of the test set.
        quantity, metric, unit: what the number is.
        values: the numbers of the seeds.
    """

    variant: str
    labels: int | None
    dataset: str
    quantity: str
    metric: str
    unit: str
    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; zero for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def curve_points(rows: Sequence[Mapping[str, Any]]) -> list[CurvePoint]:
    """Average over seeds.

    Args:
        rows: rows of `errors_stage`; models are called VARIANT/LABELS/seed-N or VARIANT/seed-N.

    Returns:
        The numbers, in the order of the rows.
    """
    values_by_point: dict[CurvePoint, list[float]] = {}
    for row in rows:
        variant, *middle, _ = str(row["model"]).split("/")
        labels = int(middle[0]) if middle else None
        point = CurvePoint(variant, labels, row["dataset"], row["property"], row["metric"], row["unit"])
        values_by_point.setdefault(point, []).append(float(row["value"]))
    return [replace(point, values=tuple(values)) for point, values in values_by_point.items()]


def curve_table(rows: Sequence[Mapping[str, Any]], metric: str = "rmse") -> str:
    """A table of text: a line for each test set, variant and number of labels, a column for each property.

    Args:
        rows: rows of `errors_stage`.
        metric: the metric to show; metrics of searches and dynamics are shown in any case.

    Returns:
        The table: means over the seeds, with their standard deviation.
    """
    points = [p for p in curve_points(rows) if p.metric == metric]
    columns = list(dict.fromkeys((p.quantity, p.unit) for p in points))
    lines = [("test set", "variant", "labels", "seeds", *(f"{name} ({unit})" for name, unit in columns))]
    table: dict[tuple[Any, ...], dict[str, CurvePoint]] = {}
    for p in points:
        table.setdefault((p.dataset, p.variant, p.labels), {})[p.quantity] = p
    for (dataset, variant, labels), cells in table.items():
        first = next(iter(cells.values()))
        texts = [_shown(cells.get(name)) for name, _ in columns]
        lines.append((dataset, variant, "" if labels is None else str(labels), str(len(first.values)), *texts))
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _shown(point: CurvePoint | None) -> str:
    if point is None:
        return "-"
    return f"{point.mean:.4g}" + (f" ± {point.spread:.2g}" if len(point.values) > 1 else "")
