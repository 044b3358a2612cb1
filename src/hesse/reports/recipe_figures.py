"""Figures of recipes: errors against the number of labels, and predicted against true errors of a committee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hesse.reports.figure_style import (
    BASELINE_COLOR,
    MUTED_COLOR,
    OTHER_COLOR,
    figure_style,
    log_axis,
    new_figure,
    to_png,
)

__all__ = ["draw_calibration", "draw_label_curve"]

_COLORS = (MUTED_COLOR, OTHER_COLOR, "#009e73", "#cc79a7", BASELINE_COLOR, "#56b4e9")
_MARKERS = "osD^vP"
_NAMES = {"hvp": "H v", "hessian": "Hessian", "forces": "forces", "energy": "energy"}


def draw_label_curve(
    rows: Sequence[Mapping[str, Any]], path: str | Path, *, property: str = "hessian", metric: str = "rmse"
) -> bool:
    """Draw the error of each variant against the number of labels, a panel for each test set.

    Args:
        rows: numbers of variants over seeds: dataset, variant, labels (None for models without), property, metric,
            unit, values.
        path: a .png file.
        property: what is drawn.
        metric: its metric.

    Returns:
        False if there is nothing to draw: no such property, or one number of labels only.

    Raises:
        WriteError: the figure cannot be written.
    """
    shown = [row for row in rows if (row["property"], row["metric"]) == (property, metric)]
    counts = {row["labels"] for row in shown if row["labels"]}
    datasets = list(dict.fromkeys(row["dataset"] for row in shown))
    variants = list(dict.fromkeys(row["variant"] for row in shown))
    if len(counts) < 2:
        return False
    with figure_style():
        figure, first = new_figure(1.2 + 3.4 * len(datasets), 3.4)
        first.remove()
        for k, dataset in enumerate(datasets):
            axes = figure.add_subplot(1, len(datasets), k + 1)
            of_panel = [row for row in shown if row["dataset"] == dataset]
            for number, variant in enumerate(variants):
                _draw_variant(axes, [row for row in of_panel if row["variant"] == variant], variant, number)
            values = [value for row in of_panel for value in row["values"]]
            axes.set(xscale="log", yscale="log", xlabel="labels", title=dataset)
            axes.xaxis.set_major_locator(FixedLocator(sorted(counts)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            log_axis(axes.yaxis, min(values), max(values))
            if k == 0:
                axes.set_ylabel(f"error of {_NAMES.get(property, property)} ({of_panel[0]['unit']})")
                axes.legend(loc="best")
        to_png(figure, path)
    return True


def _draw_variant(axes: Axes, rows: Sequence[Mapping[str, Any]], variant: str, number: int) -> None:
    color, marker = _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)]
    plain = [row for row in rows if not row["labels"]]
    counted = sorted((row for row in rows if row["labels"]), key=lambda row: row["labels"])
    for row in plain:
        axes.axhline(float(np.mean(row["values"])), color=color, linestyle=":", linewidth=1.0, label=variant)
    if not counted:
        return
    x = [row["labels"] for row in counted]
    axes.plot(x, [np.mean(row["values"]) for row in counted], color=color, marker=marker, markersize=4, label=variant)
    for count, row in zip(x, counted, strict=True):
        axes.plot([count] * len(row["values"]), row["values"], ".", color=color, markersize=3, alpha=0.6)


def draw_calibration(
    points: Sequence[Mapping[str, Any]], path: str | Path, *, property: str = "hvp", unit: str = "eV/Å²"
) -> bool:
    """Draw the error of each structure against the disagreement of the committee.

    Args:
        points: mappings with property, spread and error of a structure.
        path: a .png file.
        property: which of them are drawn.
        unit: their unit.

    Returns:
        False if there is no such point.

    Raises:
        WriteError: the figure cannot be written.
    """
    shown = [
        (p["spread"], p["error"]) for p in points if p["property"] == property and min(p["spread"], p["error"]) > 0
    ]
    if not shown:
        return False
    spread, error = np.array(shown).T
    low, high = float(min(spread.min(), error.min())), float(max(spread.max(), error.max()))
    with figure_style():
        figure, axes = new_figure(3.9, 3.6)
        axes.plot(spread, error, ".", color=OTHER_COLOR, markersize=4, alpha=0.5)
        axes.plot([low, high], [low, high], color=MUTED_COLOR, linewidth=1.0)
        factor = float(np.sqrt(np.mean(error**2) / np.mean(spread**2)))
        axes.plot([low, high], [factor * low, factor * high], color=BASELINE_COLOR, linewidth=1.0,
                  label=f"{factor:.2g} times the disagreement")  # fmt: skip
        name = _NAMES.get(property, property)
        axes.set(xscale="log", yscale="log", xlabel=f"disagreement about {name} ({unit})",
                 ylabel=f"error of {name} ({unit})")  # fmt: skip
        log_axis(axes.xaxis, *axes.get_xlim())
        log_axis(axes.yaxis, *axes.get_ylim())
        axes.legend(loc="best")
        to_png(figure, path)
    return True
