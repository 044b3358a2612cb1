"""Style and output of figures, independent of the user's matplotlib settings: SVG for HTML pages, PNG for elsewhere.

Figures have no background of their own. The output is the same, byte for byte, for the same input and the same version
of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from hesse.reports.formatting import format_number
from hesse.runtime.filesystem import atomic_write, atomic_write_text, picture_suffix

__all__ = [
    "BASELINE_COLOR",
    "MUTED_COLOR",
    "OTHER_COLOR",
    "TEXT_COLOR",
    "density_colormap",
    "figure_style",
    "log_axis",
    "new_figure",
    "title_with_note",
    "to_png",
    "to_svg",
    "write_picture",
]

# Blue and vermilion of Okabe and Ito: distinguishable with any color vision.
BASELINE_COLOR: Final[str] = "#d55e00"
OTHER_COLOR: Final[str] = "#0072b2"
TEXT_COLOR: Final[str] = "#1c2126"
MUTED_COLOR: Final[str] = "#8a9199"

_RC_PARAMS: Final[Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.edgecolor": MUTED_COLOR,
    "axes.labelcolor": TEXT_COLOR,
    "axes.titlecolor": TEXT_COLOR,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "text.color": TEXT_COLOR,
    "xtick.color": MUTED_COLOR,
    "ytick.color": MUTED_COLOR,
    "xtick.labelcolor": TEXT_COLOR,
    "ytick.labelcolor": TEXT_COLOR,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "hesse",
    "text.parse_math": False,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Context in which figures have the style of Hesse, whatever the user's matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC_PARAMS)
        yield


def new_figure(width: float = 3.7, height: float = 3.2) -> tuple[Figure, Axes]:
    """A figure with one panel. Reports use several small figures, which stack on a phone, where one wide figure would
    shrink.

    Args:
        width: width in inches.
        height: height in inches.

    Returns:
        The figure and its axes.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def title_with_note(axes: Axes, title: str, note: str) -> None:
    """Write a title above a panel, and a line of numbers in small type between them: no curve is below it.

    Args:
        axes: the panel.
        title: short.
        note: lines of up to some 40 characters.
    """
    axes.set_title(title, pad=15.0 + 10.0 * note.count("\n"))
    axes.annotate(
        note,
        (0.0, 1.0),
        (0.0, 4.0),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        ha="left",
        fontsize=8.0,
    )


def log_axis(axis: Any, low: float, high: float) -> None:
    """Set the ticks of a logarithmic axis: plain numbers, more of them on an axis of few decades.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
        low: smallest value on the axis.
        high: largest value on the axis.
    """
    decades = high / low if low > 0 else 1.0
    steps = (1.0, 2.0, 5.0) if decades < 30 else ((1.0, 3.0) if decades < 1e3 else (1.0,))
    # Within half a decade ticks at 1, 2, 5 might leave one label only: use round numbers at equal distances.
    axis.set_major_locator(MaxNLocator(nbins=5) if decades < 3 else LogLocator(subs=steps))
    axis.set_minor_locator(NullLocator() if decades < 3 else LogLocator(subs="auto"))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if 1e-4 <= value < 1e5 else format_number(value))
    )
    axis.set_minor_formatter(NullFormatter())


def density_colormap(color: str) -> LinearSegmentedColormap:
    """Color map for densities, from faint to full color; readable on light and dark pages.

    Args:
        color: the full color.

    Returns:
        The color map.
    """
    rgb = to_rgb(color)
    return LinearSegmentedColormap.from_list("density", [(*rgb, 0.22), (*rgb, 1.0)])


def to_svg(figure: Figure) -> str:
    """The figure as SVG.

    Args:
        figure: the figure.

    Returns:
        The content of an SVG file.
    """
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def to_png(figure: Figure, path: str | Path, *, dpi: int = 200) -> None:
    """Write the figure as a PNG file with white background.

    Args:
        figure: the figure.
        path: the file.
        dpi: dots per inch.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as aside, open(aside, "wb") as handle:
        FigureCanvasAgg(figure)
        figure.savefig(handle, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})


def write_picture(figure: Figure, path: str | Path) -> None:
    """Write the figure as its file name says.

    Args:
        figure: the figure.
        path: the file, `.png` or `.svg`.

    Raises:
        FileFormatError: another suffix; `picture_suffix` tells it before the work.
        WriteError: the file cannot be written.
    """
    if picture_suffix(path) == ".png":
        to_png(figure, path)
    else:
        atomic_write_text(path, to_svg(figure))
