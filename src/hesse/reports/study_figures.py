"""Figures of the comparison of several runs: learning curves, accuracy against processor time, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from hesse.reports.figure_style import BASELINE_COLOR, OTHER_COLOR, figure_style, log_axis, new_figure, to_svg
from hesse.reports.formatting import format_number
from hesse.reports.point_plot import PlotLine, PointPlot

__all__ = ["SERIES_COLORS", "accuracy_figure", "agreement_plot", "fraction_figure"]

SERIES_COLORS: Final = (BASELINE_COLOR, OTHER_COLOR, "#009e73", "#cc79a7", "#7a5c00", "#56b4e9", "#1c2126")
"""Colors of Okabe and Ito, distinguishable with any color vision."""

_MARKERS: Final = "os^DvP*"


def fraction_figure(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Error against the fraction of the training data, a line for each series.

    Args:
        rows: points of learning curves of one test set and property.
        title: title of the panel.

    Returns:
        SVG text.
    """
    with figure_style():
        figure, axes = new_figure()
        for k, series in enumerate(dict.fromkeys(row["series"] for row in rows)):
            points = [row for row in rows if row["series"] == series]
            x = [100 * row["fraction"] for row in points]
            errors = [row["sd"] or 0.0 for row in points]
            axes.errorbar(
                x,
                [row["mean"] for row in points],
                errors,
                color=SERIES_COLORS[k % len(SERIES_COLORS)],
                marker=_MARKERS[k % len(_MARKERS)],
                markersize=5,
                capsize=2,
                label=series,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        fractions = [100 * row["fraction"] for row in rows]
        values = [row["mean"] for row in rows]
        log_axis(axes.xaxis, min(fractions), max(fractions))
        log_axis(axes.yaxis, min(values), max(values))
        axes.set(title=title, xlabel="training data (%)", ylabel=f"RMSE ({rows[0]['unit']})")
        axes.legend()
        return to_svg(figure)


def accuracy_figure(points: Sequence[tuple[str, float, float, float | None]], title: str, unit: str) -> str:
    """Error against the processor time of training.

    Args:
        points: name, processor time in s, mean error, and standard deviation over seeds of each variant.
        title: title of the panel.
        unit: unit of the error.

    Returns:
        SVG text.
    """
    with figure_style():
        figure, axes = new_figure()
        for k, (name, seconds, mean, sd) in enumerate(points):
            color = SERIES_COLORS[k % len(SERIES_COLORS)]
            axes.errorbar(
                seconds, mean, sd or 0.0, color=color, marker=_MARKERS[k % len(_MARKERS)], capsize=2, label=name,
                linestyle="none",
            )  # fmt: skip
        for axis, values in ((axes.xaxis, [p[1] for p in points]), (axes.yaxis, [p[2] for p in points])):
            if min(values) > 0 and max(values) > 3 * min(values):
                (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
                log_axis(axis, min(values), max(values))
        axes.set(title=title, xlabel="processor time of training (s)", ylabel=f"RMSE ({unit})")
        axes.margins(0.15)
        axes.legend(fontsize=7)
        return to_svg(figure)


def agreement_plot(row: Mapping[str, Any], title: str) -> PointPlot:
    """Lay out a plot of Bland and Altman.

    Args:
        row: agreement of a variant with its baseline.
        title: title of the plot.

    Returns:
        The plot.
    """
    from matplotlib.ticker import MaxNLocator

    x, y = np.array(row["means"]), np.array(row["differences"])
    lines = [(row["high"], "limit", "upper limit"), (row["bias"], "bias", "bias"), (row["low"], "limit", "lower limit")]
    left, right = _padded(x.min(), x.max())
    bottom, top = _padded(min(y.min(), row["low"], 0.0), max(y.max(), row["high"], 0.0))

    def to_x(value: float) -> float:
        return round(300 * (value - left) / (right - left), 2)

    def to_y(value: float) -> float:
        return round(200 * (top - value) / (top - bottom), 2)

    unit = row["unit"]
    texts = [
        f"{group}: mean {format_number(float(a))} {unit}, difference {_signed(float(b))} {unit}"
        for group, a, b in zip(row["groups"], x, y, strict=True)
    ]
    x_ticks = [tick for tick in MaxNLocator(5).tick_values(left, right) if left <= tick <= right]
    y_ticks = [tick for tick in MaxNLocator(5).tick_values(bottom, top) if bottom <= tick <= top]
    return PointPlot(
        title=title,
        description=(
            f"Bland-Altman plot of {title}: bias {_signed(row['bias'])} {unit}, limits of agreement "
            f"{_signed(row['low'])} to {_signed(row['high'])} {unit}, {row['n']} groups"
        ),
        x_label=f"mean of both errors ({unit})",
        y_label=f"difference ({unit})",
        points=tuple((to_x(a), to_y(b), text) for a, b, text in zip(x, y, texts, strict=True)),
        lines=(
            *(
                PlotLine(0, to_y(value), 300, to_y(value), kind, f"{text} {_signed(value)}")
                for value, kind, text in lines
            ),
            PlotLine(0, to_y(0.0), 300, to_y(0.0)),
        ),
        x_ticks=tuple((to_x(tick), f"{tick:.4g}") for tick in x_ticks),
        y_ticks=tuple((to_y(tick), f"{tick:.4g}".replace("-", "−")) for tick in y_ticks),
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _signed(value: float) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + format_number(abs(value))
