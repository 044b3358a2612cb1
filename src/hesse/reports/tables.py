"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from hesse.evaluation import Evaluation, MetricRow, property_names, property_unit
from hesse.reports.compared_models import Comparison
from hesse.reports.formatting import (
    ev_to_kcal,
    format_noise_floor,
    format_number,
    format_percent,
    kcal_unit,
    property_title,
)
from hesse.runtime.terminal import plain_markup, rich_stream

__all__ = ["comparison_table", "error_tables", "new_table", "print_tables", "vibration_table"]


def error_tables(rows: Sequence[MetricRow]) -> Iterator[Table]:
    """One table per data set and tag: RMSE, MAE and noise floor in eV, and below in kcal/mol; at most 80 columns wide.

    Args:
        rows: rows of evaluations.

    Yields:
        Tables to print.
    """
    for (dataset, tag), group in groupby(rows, key=lambda row: (row.dataset, row.tag)):
        table = new_table(f"{dataset} · {tag}" if tag else dataset)
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
                property_title(prop),
                f"{by_metric['rmse'].n:,}",
                format_number(rmse),
                format_number(mae),
                format_noise_floor(floor),
                unit,
            )
            kcal = (
                format_number(ev_to_kcal(rmse)),
                format_number(ev_to_kcal(mae)),
                format_noise_floor(ev_to_kcal(floor)),
                kcal_unit(unit),
            )
            table.add_row("", "", *kcal)
        yield table


def worst_tables(evaluation: Evaluation, n: int = 5, rank_by: str | None = None) -> Iterator[Table]:
    """The groups (molecules, reactions) and the structures with the largest root-mean-square errors, in eV and Å.

    Args:
        evaluation: the errors of a potential on a data set.
        n: number of groups and of structures to list.
        rank_by: property that sorts them; by default forces, or energies per atom if there are no forces.

    Yields:
        A table of groups if there are several, and a table of structures if there are several.

    Raises:
        RequestError: there is no error of `rank_by`.
    """
    structures = evaluation.dataset.structures
    key = evaluation.ranking_property(rank_by)
    groups = evaluation.by_group(rank_by) if any(s.group for s in structures) else ()
    columns = [name for name in property_names() if evaluation.row(name) and name in (key, *_BRIEF_COLUMNS)]

    def table(title: str, names: Sequence[str]) -> Table:
        result = new_table(f"{evaluation.name} · {title} by {property_title(key)}")
        for name in names:
            result.add_column(name, justify="left" if name != "structures" else "right", overflow="fold")
        for name in columns:
            heading = f"{_BRIEF_TITLES.get(name, property_title(name))} {property_unit(name)}"
            result.add_column(heading, justify="right", no_wrap=True)
        return result

    if len(groups) > 1:
        shown = groups[:n]
        part = f"worst {len(shown)} of {len(groups)} groups" if len(shown) < len(groups) else "groups"
        groups_table = table(part, ("group", "structures"))
        for group in shown:
            groups_table.add_row(
                group.group, f"{group.n_structures:,}", *(format_number(group.rmse.get(name)) for name in columns)
            )
        yield groups_table
    if len(structures) > 1:
        part = f"worst {n} of {len(structures):,} structures" if n < len(structures) else "structures"
        structures_table = table(part, ("structure",))
        for structure in evaluation.worst(n, rank_by):
            structures_table.add_row(structure.id, *(format_number(structure.rmse.get(name)) for name in columns))
        yield structures_table


_BRIEF_COLUMNS: Final = ("energy", "forces", "hvp", "hessian")
"""Columns of the short tables, which are at most 80 characters wide with names of usual lengths."""
_BRIEF_TITLES: Final[Mapping[str, str]] = {"energy_per_atom": "energy", "hvp": "H v"}


def comparison_table(comparison: Comparison) -> Table:
    """RMSE of both potentials on every test set, the change between them, and published changes.

    Args:
        comparison: the two potentials and their evaluations.

    Returns:
        The table to print.
    """
    old, new = comparison.baseline.name, comparison.other.name
    table = new_table(comparison.title)
    for heading in ("test set", "property"):
        table.add_column(heading, no_wrap=True)
    for heading in (old, new):
        table.add_column(f"RMSE {heading}", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for heading in ("noise floor", "change", "95 % interval", "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for row in comparison.rows:
        if row.metric != "rmse":
            continue
        if last and row.dataset != last:
            table.add_section()
        cited = [p for p in comparison.published if p.property == row.property]
        table.add_row(
            "" if row.dataset == last else row.dataset,
            property_title(row.property),
            format_number(row.baseline),
            format_number(row.other),
            row.unit,
            format_noise_floor(row.noise_floor),
            format_percent(row.percent),
            "–" if row.low is None else f"{format_percent(row.low)} to {format_percent(row.high)}",
            ", ".join(f"{format_percent(p.percent, 1)} {p.test_set}" for p in cited) or "–",
        )
        last = row.dataset
    return table


def vibration_table(comparison: Comparison) -> Table:
    """Mean absolute errors of harmonic frequencies and zero-point energies of both potentials.

    Args:
        comparison: the two potentials and their evaluations.

    Returns:
        The table to print; without rows if no test set contains relaxed structures with Hessians.
    """
    table = new_table("Harmonic vibrations at the minima of the reference, mean absolute errors")
    for heading in ("test set", "quantity"):
        table.add_column(heading, no_wrap=True)
    for heading in (comparison.baseline.name, comparison.other.name):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("molecules", justify="right", no_wrap=True)
    for name, sides in comparison.vibrations.items():
        count = str(sides[0].n_structures)
        frequencies = [format_number(side.frequency_mae) for side in sides]
        energies = [format_number(ev_to_kcal(side.zero_point_mae)) for side in sides]
        table.add_row(name, "frequencies", *frequencies, "cm⁻¹", count)
        table.add_row("", "zero-point energy", *energies, "kcal/mol", "")
    return table


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables to standard output: with rules on a terminal, as plain columns elsewhere.

    A table is never narrower than its numbers: on a small terminal lines wrap, and no digit is cut off.

    Args:
        tables: the tables.
    """
    console = Console(file=rich_stream())
    for table in tables:
        if not console.is_terminal:
            table.box = None
        needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        Console(file=rich_stream(), width=max(needed, console.width), highlight=False).print(table)
        console.print()


class _PlainTable(Table):
    """A table that shows all text literally: names come from files, and rich takes `[bold]` for a style."""

    def add_column(self, header: Any = "", *args: Any, **options: Any) -> None:
        super().add_column(_literal(header), *args, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_literal, cells), **options)


def _literal(cell: Any) -> Any:
    return plain_markup(cell) if isinstance(cell, str) else cell


def new_table(title: str) -> Table:
    """An empty table in the style of all tables.

    Args:
        title: its title.

    Returns:
        The table, without columns.
    """
    return _PlainTable(
        title=plain_markup(title), title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
