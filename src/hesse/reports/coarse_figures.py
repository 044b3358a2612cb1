"""Distributions of coarse-grained dynamics beside the mapped reference, as a figure: one row of panels per state
point."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hesse.coarse import BeadComparison, BinnedDistribution
from hesse.errors import RequestError
from hesse.reports.figure_style import BASELINE_COLOR, MUTED_COLOR, figure_style, title_with_note, write_picture
from hesse.runtime.filesystem import picture_suffix

__all__ = ["draw_bead_comparison"]

_MAX_POINTS = 12


def draw_bead_comparison(comparison: BeadComparison, path: str | Path) -> None:
    """Draw all curves of a comparison with their 95 % bands.

    Args:
        comparison: the comparison; of more than 12 state points the first 12 are drawn.
        path: `.png` or `.svg`.

    Raises:
        FileFormatError: another ending.
        RequestError: nothing to draw.
        WriteError: the file cannot be written.
    """
    picture_suffix(path)
    points = comparison.points[:_MAX_POINTS]
    if not points:
        raise RequestError("there is no state point to draw")
    columns = max(len(point.curves) for point in points)
    with figure_style():
        figure = Figure(figsize=(3.4 * columns, 0.4 + 2.6 * len(points)), layout="constrained")
        axes = figure.subplots(len(points), columns, squeeze=False)
        for row, point in zip(axes, points, strict=True):
            for panel, curve in zip(row, point.curves, strict=False):
                _draw(panel, curve.reference, MUTED_COLOR, "all-atom, mapped")
                _draw(panel, curve.model, BASELINE_COLOR, "model")
                noise = f"noise {curve.noise:.2g}" if math.isfinite(curve.noise) else "noise unknown"
                note = f"{point.name}\n" if point.name else ""
                title_with_note(panel, curve.name, f"{note}difference {curve.error:.3g}, {noise}")
                radial = curve.kind == "rdf"
                panel.set_xlabel("r (Å)" if radial else "angle (degrees)")
                panel.set_ylabel("g(r)" if radial else "density (1/degree)")
                panel.set_ylim(bottom=0.0)
                panel.set_xlim(0.0, curve.reference.centers[-1] + 0.5 * curve.reference.width)
            for panel in row[len(point.curves) :]:
                panel.set_axis_off()
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        write_picture(figure, path)


def _draw(panel: Any, distribution: BinnedDistribution, color: str, label: str) -> None:
    """A curve with its band."""
    low, high = distribution.band()
    panel.fill_between(distribution.centers, low, high, color=color, alpha=0.3, linewidth=0.0)
    panel.plot(distribution.centers, distribution.mean, color=color, label=label, linewidth=1.3)
