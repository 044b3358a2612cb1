"""Tables and figures of what labels, training steps and inference cost: time and memory against the number of atoms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.table import Table

from hesse.errors import RequestError
from hesse.reports.figure_style import (
    BASELINE_COLOR,
    MUTED_COLOR,
    OTHER_COLOR,
    TEXT_COLOR,
    figure_style,
    log_axis,
    to_png,
)
from hesse.reports.formatting import format_number
from hesse.reports.tables import new_table

__all__ = [
    "cell_cost_tables",
    "draw_cell_costs",
    "draw_label_costs",
    "inference_cost_tables",
    "label_cost_tables",
    "step_cost_tables",
]

_LABEL_SERIES: Final[Mapping[str, tuple[str, str, str]]] = {
    "energy": ("energy", MUTED_COLOR, "s"),
    "gradient": ("gradient", TEXT_COLOR, "o"),
    "hvp": ("H v", OTHER_COLOR, "^"),
    "hessian": ("Hessian", BASELINE_COLOR, "D"),
}

SCHEME_NAMES: Final[Mapping[str, str]] = {"ef": "E-F", "ef_hvp": "E-F-HVP", "ef_h": "E-F-H"}
INFERENCE_NAMES: Final[Mapping[str, str]] = {"e": "E", "ef": "E, F", "hvp": "E, F, H v", "hessian": "E, F, Hessian"}
_SCHEME_SERIES: Final[Mapping[str, tuple[str, str]]] = {
    "ef": (TEXT_COLOR, "o"),
    "ef_hvp": (OTHER_COLOR, "^"),
    "ef_h": (BASELINE_COLOR, "D"),
}

CostRows = Sequence[Mapping[str, Any]]


def label_cost_tables(rows: CostRows) -> Iterator[Table]:
    """One table per engine: seconds of each label, and the ratios H v to gradient and Hessian to H v.

    Args:
        rows: fields of `LabelCost`, one mapping per row.

    Yields:
        Tables to print.
    """
    for engine, group in groupby(rows, key=lambda row: row["engine"]):
        engine_rows = list(group)
        table = new_table(f"{engine_rows[0]['level']} ({engine}): seconds on one thread")
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


def draw_label_costs(rows: CostRows, exponents: Mapping[tuple[str, str], float], path: str | Path) -> None:
    """Draw seconds of every label against the number of atoms, on logarithmic axes, one panel per engine.

    Args:
        rows: fields of `LabelCost`, one mapping per row; the columns engine, level, label, atoms and seconds are used.
        exponents: fitted powers of the number of atoms by (engine, label), for the legend.
        path: the PNG file.

    Raises:
        RequestError: there are no rows.
        WriteError: the figure cannot be written.
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


def _plot_label_costs(axes: Axes, rows: CostRows, exponents: Mapping[tuple[str, str], float]) -> None:
    for label, (name, color, marker) in _LABEL_SERIES.items():
        points = [(row["atoms"], row["seconds"]) for row in rows if row["label"] == label and row["seconds"] > 0]
        if not points:
            continue
        power = exponents.get((rows[0]["engine"], label))
        legend = name if power is None else f"{name}, grows as N^{power:.1f}"
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=4.5, label=legend)
    axes.set_xscale("log")
    axes.set_yscale("log")
    atoms, seconds = [row["atoms"] for row in rows], [row["seconds"] for row in rows if row["seconds"] > 0]
    log_axis(axes.xaxis, min(atoms), max(atoms))
    log_axis(axes.yaxis, min(seconds), max(seconds))
    axes.set(title=str(rows[0]["level"]), xlabel="atoms N (straight alkanes)", ylabel="seconds on one thread")
    axes.legend(loc="upper left", handlelength=1.4)
    axes.margins(y=0.18)


def step_cost_tables(rows: CostRows) -> Iterator[Table]:
    """One table per batch and floating-point type: milliseconds and memory of a step of each subject.

    Args:
        rows: fields of `StepCost`, one mapping per row.

    Yields:
        Tables to print.
    """
    for (structures, atoms, dtype, device), group in groupby(rows, key=_batch_key):
        table = new_table(f"a step on {structures} structures, {atoms:,} atoms; {dtype}, {device}")
        for heading in ("subject", "mode", "loss of"):
            table.add_column(heading, no_wrap=True)
        for heading in ("wall, ms", "process, ms", "÷ E-F", "peak, MiB", "repeats"):
            table.add_column(heading, justify="right", no_wrap=True)
        last = ("", "")
        for row in group:
            case_mode = (row["subject"], row["mode"])
            table.add_row(
                *(("", "") if case_mode == last else case_mode),
                SCHEME_NAMES[row["scheme"]],
                format_number(1e3 * row["seconds"]),
                format_number(1e3 * row["process_seconds"]),
                format_number(row["ratio_to_ef"]),
                format_number(row["peak_mib"]),
                f"{row['repeats']}" + (f" in {row['parts']} parts" if row["parts"] > 1 else ""),
            )
            last = case_mode
        yield table


def inference_cost_tables(rows: CostRows) -> Iterator[Table]:
    """One table per set of structures and floating-point type: milliseconds, memory and structures per second.

    Args:
        rows: fields of `InferenceCost`, one mapping per row.

    Yields:
        Tables to print.
    """
    for (structures, atoms, dtype, device), group in groupby(rows, key=_batch_key):
        table = new_table(f"inference for {structures} structures, {atoms:,} atoms; {dtype}, {device}")
        for heading in ("subject", "computed"):
            table.add_column(heading, no_wrap=True)
        for heading in ("wall, ms", "process, ms", "÷ E, F", "peak, MiB", "structures per second", "repeats"):
            table.add_column(heading, justify="right", no_wrap=True)
        last = ""
        for row in group:
            table.add_row(
                "" if row["subject"] == last else row["subject"],
                INFERENCE_NAMES[row["scheme"]],
                format_number(1e3 * row["seconds"]),
                format_number(1e3 * row["process_seconds"]),
                format_number(row["ratio_to_ef"]),
                format_number(row["peak_mib"]),
                format_number(structures / busy_seconds(row)),
                str(row["repeats"]),
            )
            last = row["subject"]
        yield table


def cell_cost_tables(rows: CostRows) -> Iterator[Table]:
    """One table per subject, mode and floating-point type: a step on one periodic cell against its number of atoms.

    Args:
        rows: fields of `StepCost`, one mapping per row.

    Yields:
        Tables to print.
    """
    rows = sorted(rows, key=lambda r: (r["subject"], r["mode"], r["dtype"], r["atoms"]))
    for (subject, mode, dtype), group in groupby(rows, key=lambda r: (r["subject"], r["mode"], r["dtype"])):
        table = new_table(f"{subject}, {mode}, {dtype}: a step on one periodic cell")
        table.add_column("atoms", justify="right", no_wrap=True)
        for scheme in SCHEME_NAMES.values():
            table.add_column(f"{scheme}, ms", justify="right", no_wrap=True)
            table.add_column("ms/atom", justify="right", no_wrap=True)
            table.add_column("MiB", justify="right", no_wrap=True)
            table.add_column("KiB/atom", justify="right", no_wrap=True)
        for atoms, cells in groupby(group, key=lambda r: r["atoms"]):
            by_scheme = {row["scheme"]: row for row in cells}
            cells_of_row: list[str] = []
            for scheme in SCHEME_NAMES:
                row = by_scheme.get(scheme)
                if row is None:
                    cells_of_row += ["–"] * 4
                    continue
                milliseconds, mib = 1e3 * busy_seconds(row), row["peak_mib"]
                cells_of_row += [
                    format_number(x) for x in (milliseconds, milliseconds / atoms, mib, 1024 * mib / atoms)
                ]
            table.add_row(f"{atoms:,}", *cells_of_row)
        yield table


def busy_seconds(row: Mapping[str, Any]) -> float:
    """Process time on a CPU, which depends little on other work on the machine; wall time on other devices."""
    return float(row["process_seconds"] if row["device"] == "cpu" else row["seconds"])


def draw_cell_costs(rows: CostRows, path: str | Path) -> None:
    """Draw seconds and memory of a step against the number of atoms in the cell, one row of panels per subject.

    Args:
        rows: fields of `StepCost`, one mapping per row.
        path: the PNG file.

    Raises:
        RequestError: there are no rows.
        WriteError: the figure cannot be written.
    """
    subjects = list(dict.fromkeys((row["subject"], row["mode"]) for row in rows))
    if not subjects:
        raise RequestError("no costs to draw")
    with figure_style():
        size = (8.0, 3.3 * len(subjects))
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06))
        panels = figure.subplots(len(subjects), 2, squeeze=False)
        for (subject, mode), (left, right) in zip(subjects, panels, strict=True):
            subject_rows = [row for row in rows if (row["subject"], row["mode"]) == (subject, mode)]
            seconds = [busy_seconds(row) for row in subject_rows]
            _plot_cell_costs(left, subject_rows, seconds, f"{subject}, {mode}", "seconds per step")
            _plot_cell_costs(right, subject_rows, [row["peak_mib"] for row in subject_rows], "", "peak memory, MiB")
        to_png(figure, path)


def _plot_cell_costs(axes: Axes, rows: CostRows, values: Sequence[float], title: str, label: str) -> None:
    for scheme, (color, marker) in _SCHEME_SERIES.items():
        points = [(row["atoms"], value) for row, value in zip(rows, values, strict=True) if row["scheme"] == scheme]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=color, marker=marker, markersize=4.5, label=SCHEME_NAMES[scheme]
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    atoms = [row["atoms"] for row in rows]
    log_axis(axes.xaxis, min(atoms), max(atoms))
    log_axis(axes.yaxis, min(values), max(values))
    axes.set(title=title, xlabel="atoms in one periodic cell", ylabel=label)
    axes.legend(loc="upper left", handlelength=1.4)
    axes.margins(y=0.18)


def _batch_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["structures"], row["atoms"], row["dtype"], row["device"]
