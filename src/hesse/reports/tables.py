"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from hesse.evaluation import Row
from hesse.reports.comparison import Comparison
from hesse.reports.wording import NAMES, floor_number, in_kcal, kcal_unit, number, percent

__all__ = ["comparison_table", "error_tables", "print_tables"]


def error_tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One table per data set and tag: RMSE, MAE and noise floor, in eV and below in kcal/mol; 80 columns hold it."""
    for (dataset, tag), group in groupby(rows, key=lambda row: (row.dataset, row.tag)):
        table = _table(f"{dataset} · {tag}" if tag else dataset)
        for heading in ("property", "values"):
            table.add_column(heading, justify="left" if heading == "property" else "right", no_wrap=True)
        for heading in ("RMSE", "MAE", "noise floor"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("unit", no_wrap=True)
        for prop, metrics in groupby(group, key=lambda row: row.property):
            by_metric = {row.metric: row for row in metrics}
            rmse, mae, floor = (by_metric[m].value if m in by_metric else None for m in ("rmse", "mae", "noise_floor"))
            unit = by_metric["rmse"].unit
            table.add_row(
                NAMES[prop],
                f"{by_metric['rmse'].n:,}",
                number(rmse),
                number(mae),
                floor_number(floor),
                unit,
            )
            kcal = (number(in_kcal(rmse)), number(in_kcal(mae)), floor_number(in_kcal(floor)), kcal_unit(unit))
            table.add_row("", "", *kcal)
        yield table


def comparison_table(comparison: Comparison) -> Table:
    """RMSE of both potentials on every test set, the change between them, and the published changes."""
    old, new = comparison.baseline.name, comparison.other.name
    table = _table(comparison.title)
    for heading in ("test set", "property"):
        table.add_column(heading, no_wrap=True)
    for heading in (old, new):
        table.add_column(f"RMSE {heading}", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for heading in ("noise floor", "change", "95 % interval", "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for line in comparison.lines:
        if line.metric != "rmse":
            continue
        if last and line.dataset != last:
            table.add_section()
        cited = [p for p in comparison.published if p.property == line.property]
        table.add_row(
            "" if line.dataset == last else line.dataset,
            NAMES[line.property],
            number(line.baseline),
            number(line.other),
            line.unit,
            floor_number(line.noise_floor),
            percent(line.percent),
            "–" if line.low is None else f"{percent(line.low)} to {percent(line.high)}",
            ", ".join(f"{percent(p.percent, 1)} {p.test_set}" for p in cited) or "–",
        )
        last = line.dataset
    return table


def print_tables(tables: Iterable[Table]) -> None:
    """To standard output: ruled on a terminal, plain columns elsewhere. Never narrower than its numbers: a terminal too
    small for a table wraps its lines, and no digit is cut off."""
    console = Console()
    for table in tables:
        if not console.is_terminal:
            table.box = None
        needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        Console(width=max(needed, console.width), highlight=False).print(table)
        console.print()


def _table(title: str) -> Table:
    return Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
