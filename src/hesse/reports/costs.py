"""The cost of labels: a table, and the log-log picture against the number of atoms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich import box
from rich.table import Table

from hesse.errors import RequestError
from hesse.reports.canvas import BASELINE_COLOR, TEXT_COLOR, MUTED_COLOR, OTHER_COLOR, log_axis, figure_style, to_png
from hesse.reports.wording import format_number

__all__ = ["label_cost_tables", "draw_label_costs"]

_LABEL_SERIES: Final[Mapping[str, tuple[str, str, str]]] = {
    "energy": ("energy", MUTED_COLOR, "s"),
    "gradient": ("gradient", TEXT_COLOR, "o"),
    "hvp": ("H v", OTHER_COLOR, "^"),
    "hessian": ("Hessian", BASELINE_COLOR, "D"),
}

LabelCostRows = Sequence[Mapping[str, Any]]


def label_cost_tables(rows: LabelCostRows) -> Iterator[Table]:
    """One table per engine: seconds of each label, and products and Hessians in units of a gradient."""
    for engine, group in groupby(rows, key=lambda row: row["engine"]):
        engine_rows = list(group)
        table = Table(
            title=f"{engine_rows[0]['level']} ({engine}): seconds on one thread",
            title_style="bold",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for heading in ("atoms", "energy", "gradient", "H v", "Hessian", "H v / gradient", "Hessian / H v"):
            table.add_column(heading, justify="right", no_wrap=True)
        for atoms, cells in groupby(engine_rows, key=lambda row: row["atoms"]):
            by_label = {row["label"]: row for row in cells}
            seconds = {label: row["seconds"] for label, row in by_label.items()}
            hessian_over_hvp = seconds["hessian"] / seconds["hvp"] if {"hessian", "hvp"} <= seconds.keys() else None
            table.add_row(
                str(atoms),
                *(format_number(seconds.get(label)) for label in _LABEL_SERIES),
                format_number(by_label["hvp"]["ratio"]) if "hvp" in by_label else "–",
                format_number(hessian_over_hvp),
            )
        yield table


def draw_label_costs(rows: LabelCostRows, exponents: Mapping[tuple[str, str], float], path: str | Path) -> None:
    """A PNG: seconds of every label against the number of atoms, both on logarithmic axes, one panel per engine.

    Args:
        rows: `engine, level, label, atoms, seconds`, as `LabelCost.to_json` has them.
        exponents: fitted powers of the number of atoms by (engine, label), for the legend.

    Raises:
        RequestError: nothing to draw.
        WriteError: the picture cannot be written.
    """
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    if not engines:
        raise RequestError("no costs to draw")
    with figure_style():
        figure = Figure(figsize=(4.2 * len(engines), 3.6), layout=ConstrainedLayoutEngine(wspace=0.06))
        panels = figure.subplots(1, len(engines), squeeze=False)[0]
        for axes, engine in zip(panels, engines, strict=True):
            _plot_label_costs(axes, [row for row in rows if row["engine"] == engine], exponents)
        to_png(figure, path)


def _plot_label_costs(axes: Axes, rows: LabelCostRows, exponents: Mapping[tuple[str, str], float]) -> None:
    for label, (name, colour, marker) in _LABEL_SERIES.items():
        points = [(row["atoms"], row["seconds"]) for row in rows if row["label"] == label and row["seconds"] > 0]
        if not points:
            continue
        power = exponents.get((rows[0]["engine"], label))
        legend = name if power is None else f"{name}, grows as N^{power:.1f}"
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4.5, label=legend)
    axes.set_xscale("log")
    axes.set_yscale("log")
    atoms, seconds = [row["atoms"] for row in rows], [row["seconds"] for row in rows if row["seconds"] > 0]
    log_axis(axes.xaxis, min(atoms), max(atoms))
    log_axis(axes.yaxis, min(seconds), max(seconds))
    axes.set(title=str(rows[0]["level"]), xlabel="atoms N (straight alkanes)", ylabel="seconds on one thread")
    axes.legend(loc="upper left", handlelength=1.4)
    axes.margins(y=0.18)
