"""Plots of points with names, which a page draws itself: an image could not say what a point is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hesse.reports.formatting import format_number

__all__ = ["PlotLine", "PlotPoint", "PointPlot", "point_plot"]

WIDTH: Final = 300
HEIGHT: Final = 200


@dataclass(frozen=True)
class PlotPoint:
    """A point of a plot.

    Attributes:
        x, y: in the units of the axes.
        text: its name and numbers.
    """

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class PlotLine:
    """A line of a plot.

    Attributes:
        x1, y1, x2, y2: both ends, in the units of the panel.
        kind: its style: "zero", "bias" or "limit".
        text: what it means, "" for nothing.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str = "zero"
    text: str = ""


@dataclass(frozen=True)
class PointPlot:
    """A plot, laid out for a panel of 300 by 200; y runs from top to bottom.

    Attributes:
        title: its title.
        description: words for screen readers.
        x_label, y_label: titles of the axes, with units.
        points: x, y and text of each point.
        lines: the lines.
        x_ticks, y_ticks: position and text.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    points: tuple[tuple[float, float, str], ...]
    lines: tuple[PlotLine, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def point_plot(
    title: str, points: Sequence[PlotPoint], x_label: str, y_label: str, *, log: bool = False, diagonal: bool = False
) -> PointPlot:
    """Lay out a plot of points with names.

    Args:
        title: its title.
        points: one or more points; on logarithmic axes, points that are not above zero are left out.
        x_label: title of the axis from left to right, with its unit.
        y_label: title of the axis from bottom to top, with its unit.
        log: logarithmic axes.
        diagonal: both axes have the same range, with the line on which both values agree.

    Returns:
        The plot.
    """
    if log:
        points = [p for p in points if p.x > 0 and p.y > 0]
    x_axis, y_axis = (_Axis.around([getattr(p, name) for p in points], log) for name in "xy")
    if diagonal:
        x_axis = y_axis = _Axis.around([value for p in points for value in (p.x, p.y)], log)
    return PointPlot(
        title=title,
        description=f"{title}: {len(points)} points, {x_label} from left to right, {y_label} from bottom to top",
        x_label=x_label,
        y_label=y_label,
        points=tuple(
            (round(WIDTH * x_axis.share(p.x), 2), round(HEIGHT * (1 - y_axis.share(p.y)), 2), p.text) for p in points
        ),
        lines=(PlotLine(0, HEIGHT, WIDTH, 0, text="both agree"),) if diagonal else (),
        x_ticks=tuple((round(WIDTH * x_axis.share(tick), 2), text) for tick, text in x_axis.ticks()),
        y_ticks=tuple((round(HEIGHT * (1 - y_axis.share(tick)), 2), text) for tick, text in y_axis.ticks()),
    )


@dataclass(frozen=True)
class _Axis:
    """The range of an axis, as it is drawn: logarithms on a logarithmic one."""

    low: float
    high: float
    log: bool

    @classmethod
    def around(cls, values: Sequence[float], log: bool) -> _Axis:
        drawn = [math.log10(v) if log else v for v in values] or [0.0]
        low, high = min(drawn), max(drawn)
        margin = 0.06 * (high - low) or (0.3 if log else 0.1 * abs(high) or 1.0)
        return cls(low - margin, high + margin, log)

    def share(self, value: float) -> float:
        """0 at the lower end, 1 at the upper one."""
        drawn = math.log10(value) if self.log else value
        return (drawn - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        from matplotlib.ticker import MaxNLocator

        low, high = (10.0**end for end in (self.low, self.high)) if self.log else (self.low, self.high)
        if self.log and self.high - self.low > 0.5:
            steps = (1, 2, 5) if self.high - self.low < 1.5 else (1,)
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            values = [step * 10.0**decade for decade in decades for step in steps]
            return [(v, format_number(v, 1)) for v in values if low <= v <= high]
        # Within half a decade there may be no round number of a logarithmic scale.
        values = [float(v) for v in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
        return [(v, f"{v:.4g}".replace("-", "−")) for v in values if low <= v <= high]
