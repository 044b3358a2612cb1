"""Tables of the suites of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final

from rich.table import Table

from hesse.evaluation import MetricRow
from hesse.evaluation.level_spread import LEVEL_SPREAD
from hesse.reports.formatting import ev_to_kcal, format_fraction, format_noise_floor, format_number, kcal_unit
from hesse.reports.tables import new_table

__all__ = ["SUITE_SECTIONS", "suite_number", "suite_tables", "suite_unit"]

_MAX_TITLE: Final = 26
"""Longer titles take two lines of a table, which is at most 80 columns wide."""

_RANGES: Final = (
    ("imaginary", "imaginary"),
    ("0_300", "below 300 cm⁻¹"),
    ("300_1000", "300 to 1000 cm⁻¹"),
    ("1000_2000", "1000 to 2000 cm⁻¹"),
    ("above_2000", "above 2000 cm⁻¹"),
)

SUITE_SECTIONS: Final = {
    "curvature": (
        ("eigenvalues", "mae", "eigenvalues, MAE"),
        ("mode_1", "abs_cos", "lowest mode, |cos|"),
        ("mode_2", "abs_cos", "second mode, |cos|"),
        ("modes_1_2", "overlap", "space of both, overlap"),
        ("negative_modes", "fraction_right", "right number of negative modes"),
        ("projected_curvature", "slope", "softening slope"),
        *((f"projected_curvature_{band}", "slope", f"  {title}") for band, title in _RANGES),
        ("frequencies", "mae", "frequencies, MAE"),
        *((f"frequencies_{band}", "mae", f"  {title}") for band, title in _RANGES),
        ("zpe", "mae", "zero-point energy, MAE"),
        ("gibbs_correction", "mae", "G(298 K) less E, MAE"),
    ),
    "reactions": (
        ("barrier", "mae", "barrier, MAE"),
        ("reverse_barrier", "mae", "reverse barrier, MAE"),
        ("reaction_energy", "mae", "reaction energy, MAE"),
        ("transition_states", "fraction_found", "transition states found"),
        ("transition_states", "rmsd", "  their RMSD"),
        ("imaginary_frequency", "mae", "  imaginary frequency, MAE"),
        ("relaxed_barrier", "mae", "  relaxed barrier, MAE"),
        ("irc_ends", "fraction_right", "  right ends of the path"),
    ),
    "dynamics": (
        ("dynamics", "fraction_started", "structures that relax"),
        ("dynamics", "fraction_survived", "replicas that survive"),
        ("failure_temperature", "mean", "temperature reached"),
    ),
}
"""Columns of the tables: property, metric and title."""


def suite_tables(rows: Sequence[MetricRow]) -> Iterator[Table]:
    """One table per data set and part of a suite: numbers with their 95 % intervals, energies also in kcal/mol.

    Args:
        rows: rows of evaluations; those of tags and of errors of labels are not shown.

    Yields:
        Tables to print, at most 80 columns wide. Fractions are in percent.
    """
    for dataset in dict.fromkeys(row.dataset for row in rows):
        known = {(row.property, row.metric): row for row in rows if row.dataset == dataset and not row.tag}
        for section, lines in SUITE_SECTIONS.items():
            shown = [(known[prop, metric], title) for prop, metric, title in lines if (prop, metric) in known]
            if shown:
                yield _table(f"{dataset} · {section}", shown, known)
    if any(row.metric == "level_spread" for row in rows):
        yield _spread_table(rows)


def _table(title: str, lines: Sequence[tuple[MetricRow, str]], known: dict[tuple[str, str], MetricRow]) -> Table:
    table = new_table(title)
    for heading in ("", "value", "95 % interval", "unit", "n", "noise"):
        table.add_column(heading, justify="left" if heading in ("", "unit") else "right", no_wrap=True)
    for row, name in lines:
        first, *more = [name] if len(name) <= _MAX_TITLE else wrap(name, _MAX_TITLE - 2)
        floor = known.get((row.property, "noise_floor")) if row.metric == "mae" else None
        table.add_row(
            first,
            suite_number(row, row.value),
            "" if row.ci_low is None else f"{suite_number(row, row.ci_low)} to {suite_number(row, row.ci_high)}",
            suite_unit(row),
            f"{row.n:,}",
            "" if floor is None else format_noise_floor(floor.value),
        )
        for text in more:
            table.add_row(f"  {text}")
        if row.unit == "eV":
            table.add_row(
                "",
                format_number(ev_to_kcal(row.value)),
                _interval(ev_to_kcal(row.ci_low), ev_to_kcal(row.ci_high)),
                kcal_unit(row.unit),
                "",
                "" if floor is None else format_noise_floor(ev_to_kcal(floor.value)),
            )
    return table


def suite_number(row: MetricRow, value: float | None) -> str:
    """A number of a suite, or a limit of its interval, as tables and page show it.

    Args:
        row: the row of the number.
        value: its value, or a limit.

    Returns:
        Three digits; of a fraction in percent.
    """
    return format_fraction(value) if row.metric.startswith("fraction") else format_number(value)


def suite_unit(row: MetricRow) -> str:
    """The unit of `suite_number`.

    Args:
        row: the row of the number.

    Returns:
        The unit; % for fractions, "" for other numbers without one.
    """
    if row.metric.startswith("fraction"):
        return "%"
    return "" if row.unit == "1" else row.unit


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{format_number(low)} to {format_number(high)}"


def _spread_table(rows: Sequence[MetricRow]) -> Table:
    """How far levels of theory lie apart, beside the errors of the model."""
    table = new_table("Hessian, MAE; levels of theory, from wB97M-D4/def2-QZVPPD")
    table.add_column("", no_wrap=True)
    table.add_column("eV/Å²", justify="right", no_wrap=True)
    for row in rows:
        if (row.property, row.metric, row.tag) == ("hessian", "mae", ""):
            table.add_row(f"the model, {row.dataset}", format_number(row.value))
    for level, value in LEVEL_SPREAD.items():
        table.add_row(level, format_number(value))
    return table
