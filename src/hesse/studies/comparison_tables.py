"""Tables of a comparison for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from hesse.reports.formatting import format_number, format_percent, property_title
from hesse.reports.tables import new_table
from hesse.studies.comparison_files import format_p, is_label_rmse

if TYPE_CHECKING:
    from hesse.studies.study_comparison import StudyComparison

__all__ = ["comparison_tables"]


def comparison_tables(comparison: StudyComparison) -> Iterator[Table]:
    """The errors of each test set, the changes, and the costs.

    Args:
        comparison: the comparison.

    Yields:
        Tables to print.
    """
    for dataset in dict.fromkeys(row.dataset for row in comparison.errors):
        rows = [row for row in comparison.errors if row.dataset == dataset and is_label_rmse(row)]
        by_key = {(row.variant, row.property): row for row in rows}
        columns = {row.property: row.unit for row in rows if row.property != "energy_per_atom"}
        table = new_table(f"RMSE on {dataset}, mean ± standard deviation over seeds")
        table.add_column("variant")
        for name, unit in columns.items():
            title = "H v" if name == "hvp" else property_title(name)
            table.add_column(f"{title} {unit}", justify="right", no_wrap=True)
        table.add_column("seeds", justify="right")
        for variant in dict.fromkeys(row.variant for row in rows):
            cells = [by_key.get((variant, name)) for name in columns]
            shown = [
                "–" if c is None else format_number(c.mean) + ("" if c.sd is None else f" ± {format_number(c.sd, 2)}")
                for c in cells
            ]
            table.add_row(variant, *shown, str(max(c.seeds for c in cells if c is not None)))
        yield table
    if comparison.changes:
        yield _change_table(comparison)
    costs = new_table("Cost of training, mean over seeds")
    for heading in ("variant", "steps", "processor s", "step ms", "epoch s"):
        costs.add_column(heading, justify="left" if heading == "variant" else "right")
    for cost in comparison.costs:
        step = None if cost.step_seconds is None else 1e3 * cost.step_seconds
        costs.add_row(
            cost.variant,
            f"{cost.steps:g}",
            format_number(cost.processor_seconds),
            format_number(step),
            format_number(cost.epoch_seconds),
        )
    yield costs


def _change_table(comparison: StudyComparison) -> Table:
    table = new_table("Change of the error, 95 % interval over groups, probability after correction")
    for heading in ("variant", "against", "set", "property", "metric"):
        table.add_column(heading)
    for heading in ("change", "interval", "pairs", "p (t)", "p (Wilcoxon)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.changes:
        low, high = row.group_low, row.group_high
        table.add_row(
            row.variant,
            row.baseline,
            row.dataset,
            "H v" if row.property == "hvp" else property_title(row.property),
            row.metric.upper(),
            format_percent(row.percent),
            "–" if low is None or high is None else f"{format_percent(low)} to {format_percent(high)}",
            str(row.pairs),
            format_p(row.p_t_holm),
            format_p(row.p_wilcoxon_holm),
        )
    return table
