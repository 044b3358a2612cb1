"""Figures of a report. Each function draws one small panel and returns it as SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from hesse.errors import RequestError
from hesse.reports.compared_models import ComparedModel
from hesse.reports.figure_style import (
    BASELINE_COLOR,
    MUTED_COLOR,
    OTHER_COLOR,
    TEXT_COLOR,
    density_colormap,
    figure_style,
    log_axis,
    new_figure,
    to_png,
    to_svg,
)
from hesse.reports.formatting import format_number, format_percent

__all__ = ["MAX_SCATTER_POINTS", "draw_summary", "hessian_histogram", "learning_curve", "parity_plot"]

MAX_SCATTER_POINTS: Final[int] = 400
"""Up to this number, points are drawn one by one; more of them as a density."""

_SHORT_NAMES: Final[Mapping[str, str]] = {"energy": "energy", "forces": "forces", "hvp": "H v", "hessian": "Hessian"}


def parity_plot(
    reference: Float[ndarray, "values"],
    predicted: Float[ndarray, "values"],
    *,
    title: str,
    quantity: str,
    unit: str,
    limits: tuple[float, float],
    color: str,
) -> str:
    """Predicted against reference values, with the line of perfect agreement.

    Args:
        reference: reference values.
        predicted: predicted values.
        title: title of the panel.
        quantity: name of the quantity on the axis.
        unit: unit of the values.
        limits: range of both axes; values outside are counted in a corner.
        color: color of the points.

    Returns:
        SVG text.
    """
    with figure_style():
        figure, axes = new_figure()
        axes.plot(limits, limits, color=MUTED_COLOR, linewidth=0.9, zorder=1)
        inside = np.all([(v >= limits[0]) & (v <= limits[1]) for v in (reference, predicted)], axis=0)
        if len(reference) <= MAX_SCATTER_POINTS:
            axes.scatter(reference, predicted, s=12, color=color, alpha=0.6, linewidths=0, zorder=2)
        else:
            axes.hexbin(
                reference[inside],
                predicted[inside],
                gridsize=70,
                extent=(*limits, *limits),
                norm=LogNorm(),
                cmap=density_colormap(color),
                linewidths=0,
                mincnt=1,
                zorder=2,
                rasterized=True,
            )
        axes.set(xlim=limits, ylim=limits, title=title)
        axes.set_xlabel(f"reference {quantity} ({unit})")
        axes.set_ylabel(f"predicted ({unit})")
        axes.set_aspect("equal", adjustable="box")
        axes.locator_params(nbins=5)
        rmse = float(np.sqrt(np.mean((predicted - reference) ** 2)))
        annotation = f"RMSE {format_number(rmse)} {unit}"
        if not inside.all():
            annotation += f"\n{int((~inside).sum()):,} beyond the frame"
        axes.text(0.04, 0.96, annotation, transform=axes.transAxes, va="top", fontsize=9, color=TEXT_COLOR)
        figure.set_dpi(160)  # of the rasterized density only
        return to_svg(figure)


def learning_curve(
    models: Sequence[ComparedModel], key: str, *, title: str, unit: str, kind: str = "validation"
) -> str | None:
    """One quantity of the training log against the training step.

    Args:
        models: the potentials with their logs.
        key: column of the log.
        title: title of the panel.
        unit: unit of the quantity, "" for the loss.
        kind: kind of the rows, "validation" or "train".

    Returns:
        SVG text; None if no log has the quantity.
    """
    curves = [(c.name, *_finite_values(c.log, kind, key)) for c in models]
    values = np.concatenate([y for _, _, y in curves])
    if not len(values):
        return None
    with figure_style():
        figure, axes = new_figure()
        for (label, steps, numbers), color in zip(curves, (BASELINE_COLOR, OTHER_COLOR), strict=False):
            if len(steps):
                marker = "o" if len(steps) == 1 else ""
                axes.plot(steps, numbers, color=color, label=label, marker=marker)
        axes.set_yscale("log")
        log_axis(axes.yaxis, values.min(), values.max())
        axes.set(title=title, xlabel="training step")
        axes.set_ylabel(f"RMSE ({unit})" if unit else "loss")
        axes.margins(x=0.02)
        axes.set_xlim(left=0)
        axes.legend()
        return to_svg(figure)


def _finite_values(log: Sequence[Mapping[str, Any]], kind: str, key: str) -> tuple[ndarray, ndarray]:
    points = [
        (float(row["step"]), float(row[key]))
        for row in log
        if row.get("kind") == kind and isinstance(row.get(key), int | float) and "step" in row
    ]
    finite = [(step, value) for step, value in points if np.isfinite(value) and value > 0]
    steps, values = np.array(finite).reshape(-1, 2).T
    return steps, values


def hessian_histogram(
    baseline: Float[ndarray, "structures"],
    other: Float[ndarray, "structures"],
    *,
    names: tuple[str, str],
    title: str,
) -> str | None:
    """Histogram of the Hessian RMSE of the structures, for both potentials.

    Args:
        baseline: RMSE of each structure by the first potential, eV/Å²; NaN for structures without a Hessian.
        other: the same by the second potential.
        names: names of the potentials.
        title: title of the panel.

    Returns:
        SVG text; None if no structure has a Hessian.
    """
    old, new = (v[np.isfinite(v) & (v > 0)] for v in (baseline, other))
    values = np.concatenate([old, new])
    if not len(values):
        return None
    low, high = values.min() / 1.1, values.max() * 1.1
    bins = np.geomspace(low, high, int(np.clip(3 * np.sqrt(len(values)), 8, 36)) + 1).tolist()
    with figure_style():
        figure, axes = new_figure()
        for numbers, color, label in ((old, BASELINE_COLOR, names[0]), (new, OTHER_COLOR, names[1])):
            if not len(numbers):
                continue
            axes.hist(numbers, bins, color=color, alpha=0.3)
            axes.hist(numbers, bins, color=color, histtype="step", linewidth=1.4, label=label)
            axes.axvline(float(np.median(numbers)), color=color, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        log_axis(axes.xaxis, low, high)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set(title=title, xlabel="Hessian RMSE of a structure (eV/Å²)", ylabel="structures", xlim=(low, high))
        axes.legend()
        return to_svg(figure)


def draw_summary(summary: Mapping[str, Any], path: str | Path) -> None:
    """Draw a compact figure for a README: Hessian errors of both potentials on every test set, and the changes of all
    errors next to the published ones.

    Args:
        summary: result of `Comparison.summary()`.
        path: the PNG file.

    Raises:
        RequestError: the summary has no Hessian errors.
        WriteError: the figure cannot be written.
    """
    lines = [line for line in summary["lines"] if line["metric"] == "rmse"]
    hessians = [line for line in lines if line["property"] == "hessian"]
    if not hessians:
        raise RequestError("the summary has no Hessian errors: evaluate both models on data with Hessians")
    with figure_style():
        figure = Figure(figsize=(8.4, 3.1), layout=ConstrainedLayoutEngine(wspace=0.06))
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
        names = (summary["baseline"], summary["other"])
        _error_bars(left, hessians, names)
        _change_dots(right, lines, summary["published"], names)
        to_png(figure, path)


def _error_bars(axes: Axes, lines: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> None:
    x = np.arange(len(lines), dtype=float)
    for offset, key, color, label in (
        (-0.19, "baseline", BASELINE_COLOR, names[0]),
        (0.19, "other", OTHER_COLOR, names[1]),
    ):
        values = [line[key] for line in lines]
        bars = axes.bar(x + offset, values, width=0.36, color=color, label=label)
        axes.bar_label(bars, [format_number(v) for v in values], padding=2, fontsize=9, color=TEXT_COLOR)
    width = 20 if len(lines) < 3 else 12
    axes.set_xticks(x, [textwrap.fill(line["dataset"], width) for line in lines])
    axes.tick_params(axis="x", length=0)
    axes.set(title="Hessian error on test sets", ylabel="RMSE (eV/Å²)")
    axes.margins(y=0.22)
    axes.legend(loc="upper right", ncols=2)


def _change_dots(
    axes: Axes, lines: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]], names: tuple[str, str]
) -> None:
    properties = [p for p in _SHORT_NAMES if any(line["property"] == p for line in lines)]
    sets = list(dict.fromkeys(line["dataset"] for line in lines))
    markers = ("o", "s", "^", "D", "v", "P")
    for k, dataset in enumerate(sets):
        shift = 0.0 if len(sets) == 1 else 0.16 * (k / (len(sets) - 1) - 0.5) * 2
        dataset_lines = [line for line in lines if line["dataset"] == dataset and line["percent"] is not None]
        for line in dataset_lines:
            if line["property"] not in properties:
                continue
            y = properties.index(line["property"]) + shift
            if line["low"] is not None:
                axes.plot([line["low"], line["high"]], [y, y], color=OTHER_COLOR, linewidth=1.0, alpha=0.6)
            axes.plot(line["percent"], y, markers[k % len(markers)], color=OTHER_COLOR, markersize=6)
        axes.plot([], [], markers[k % len(markers)], color=OTHER_COLOR, markersize=6, label=dataset)
    cited = [p for p in published if p["property"] in properties]
    for p in cited:
        axes.plot(
            p["percent"], properties.index(p["property"]), "|", color=MUTED_COLOR, markersize=16, markeredgewidth=1.6
        )
    if cited:
        axes.plot([], [], "|", color=MUTED_COLOR, markersize=10, markeredgewidth=1.6, label="published")
    axes.axvline(0.0, color=MUTED_COLOR, linewidth=0.9)
    axes.set_yticks(range(len(properties)), [_SHORT_NAMES[p] for p in properties])
    axes.set_ylim(len(properties) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(right=max(axes.get_xlim()[1], 5.0))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(lambda value, _: format_percent(value))
    axes.set(title=f"Change of the RMSE from {names[0]} to {names[1]}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.12), ncols=len(sets) + 1, handletextpad=0.2)
