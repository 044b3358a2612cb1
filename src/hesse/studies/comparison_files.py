"""Files of a comparison: JSON, CSV, Markdown, and a page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hesse.errors import WriteError
from hesse.evaluation import property_names
from hesse.reports.formatting import format_number, format_percent, property_title
from hesse.runtime.filesystem import atomic_write_text
from hesse.studies.comparison_rows import AgreementRow, ChangeRow, CostRow, CurveRow, ErrorRow

if TYPE_CHECKING:
    from hesse.studies.study_comparison import StudyComparison

__all__ = ["format_p", "is_label_rmse", "markdown_report", "write_comparison"]


def write_comparison(comparison: StudyComparison, folder: Path) -> tuple[Path, ...]:
    """Write a comparison as files.

    Args:
        comparison: the comparison.
        folder: the folder; created if necessary.

    Returns:
        The files: `report.html`, `comparison.md`, `comparison.json`, and a CSV file for each kind of rows.

    Raises:
        WriteError: a file cannot be written.
    """
    from hesse.reports.study_page import render_study_page  # with matplotlib, which runs do not need

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {folder}: {error.strerror}") from error
    content = comparison.to_dict()
    texts = {
        "report.html": render_study_page(content),
        "comparison.md": markdown_report(comparison),
        "comparison.json": json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "errors.csv": _csv(ErrorRow, comparison.errors),
        "changes.csv": _csv(ChangeRow, comparison.changes),
        "agreement.csv": _csv(AgreementRow, comparison.agreement, without=("groups", "means", "differences")),
        "agreement_points.csv": _points(comparison.agreement),
        "learning_curves.csv": _csv(CurveRow, comparison.curves),
        "costs.csv": _csv(CostRow, comparison.costs),
    }
    for name, text in texts.items():
        atomic_write_text(folder / name, text)
    return tuple(folder / name for name in texts)


def _csv(row_type: type, rows: Iterable[Any], without: Sequence[str] = ()) -> str:
    """Rows as CSV; lists are separated by spaces, absent values are empty."""
    names = [field.name for field in fields(row_type) if field.name not in without]
    return _csv_text(names, ([_cell(values[name]) for name in names] for values in map(asdict, rows)))


def _points(rows: Iterable[AgreementRow]) -> str:
    names = ["variant", "baseline", "dataset", "property", "group", "mean", "difference"]
    lines = (
        [row.variant, row.baseline, row.dataset, row.property, group, repr(mean), repr(difference)]
        for row in rows
        for group, mean, difference in zip(row.groups, row.means, row.differences, strict=True)
    )
    return _csv_text(names, lines)


def _csv_text(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(lines)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(repr(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)


def markdown_report(comparison: StudyComparison) -> str:
    """The tables of a comparison as Markdown.

    Args:
        comparison: the comparison.

    Returns:
        The text.
    """
    parts = [f"# {comparison.title}\n", *(f"- {text}" for text in comparison.verdicts), ""]
    parts += [f"Note: {text}.\n" for text in comparison.notes]
    for dataset in dict.fromkeys(row.dataset for row in comparison.errors):
        parts += [_error_table(comparison, dataset), *_suite_table(comparison, dataset)]
    if comparison.changes:
        parts.append(_change_table(comparison.changes))
    if comparison.agreement:
        parts.append(_agreement_table(comparison.agreement))
    if comparison.curves:
        parts += [_curve_table(comparison.curves), *(f"- {text}" for text in comparison.crossings), ""]
    parts.append(_cost_table(comparison.costs))
    if not comparison.is_study:
        lines = [[name, ", ".join(str(run.folder) for run in runs)] for name, runs in comparison.variants.items()]
        parts.append(_table("Runs", ["variant", "folders"], lines))
    if comparison.failed:
        lines = [[name, reason] for name, reason in comparison.failed.items()]
        parts.append(_table("Cells that failed", ["cell", "reason"], lines))
    if comparison.missing:
        parts.append(f"Not done yet: {', '.join(comparison.missing)}.\n")
    return "\n".join(parts)


def _error_table(comparison: StudyComparison, dataset: str) -> str:
    rows = [row for row in comparison.errors if row.dataset == dataset and is_label_rmse(row)]
    columns = {row.property: f"{property_title(row.property)}, {row.unit}" for row in rows}
    by_key = {(row.variant, row.property): row for row in rows}
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        cells = [by_key.get((variant, name)) for name in columns]
        seeds = max(row.seeds for row in cells if row is not None)
        lines.append([variant, *(_mean_and_sd(row) for row in cells), str(seeds)])
    title = f"RMSE on {dataset} ({rows[0].structures} structures): mean ± standard deviation over seeds"
    return _table(title, ["variant", *columns.values(), "seeds"], lines)


def is_label_rmse(row: ErrorRow) -> bool:
    """Whether a row belongs to the main table of a test set.

    Args:
        row: an error.

    Returns:
        True for root-mean-square errors of labels; False for mean absolute errors, and for what a suite adds.
    """
    return row.metric == "rmse" and row.property in property_names()


def _suite_table(comparison: StudyComparison, dataset: str) -> Iterator[str]:
    """Numbers that a suite adds: a line for each number, a column for each variant."""
    rows = [row for row in comparison.errors if row.dataset == dataset and row.property not in property_names()]
    variants = list(dict.fromkeys(row.variant for row in rows))
    by_key: dict[tuple[str, str, str], dict[str, ErrorRow]] = {}
    for row in rows:
        by_key.setdefault((row.property, row.metric, row.unit), {})[row.variant] = row
    lines = [
        [
            property_title(prop),
            metric.replace("_", " "),
            *(_mean_and_sd(rows_of_metric.get(name)) for name in variants),
            unit,
        ]
        for (prop, metric, unit), rows_of_metric in by_key.items()
    ]
    if lines:
        yield _table(f"Further numbers on {dataset}", ["property", "metric", *variants, "unit"], lines)


def _mean_and_sd(row: ErrorRow | CurveRow | None) -> str:
    if row is None:
        return "–"
    return format_number(row.mean) + ("" if row.sd is None else f" ± {format_number(row.sd, 2)}")


def _change_table(rows: Sequence[ChangeRow]) -> str:
    head = [
        "variant", "against", "set", "property", "change", "over seeds", "over groups", "pairs", "p (t)",
        "p (Wilcoxon)", "verdict",
    ]  # fmt: skip
    lines = [
        [
            row.variant,
            row.baseline,
            row.dataset,
            property_title(row.property) + ("" if row.metric == "rmse" else f" ({row.metric.upper()})"),
            format_percent(row.percent),
            _interval(row.seed_low, row.seed_high),
            _interval(row.group_low, row.group_high),
            str(row.pairs),
            format_p(row.p_t_holm) if not row.untested else row.untested,
            format_p(row.p_wilcoxon_holm),
            row.verdict,
        ]
        for row in rows
    ]
    return _table(
        "Change of the RMSE (MAE where it says so) in pairs of the same seed, with 95 % intervals over seeds and over "
        "groups of the test set; "
        "two-sided probabilities after Holm's correction",
        head,
        lines,
    )


def _agreement_table(rows: Sequence[AgreementRow]) -> str:
    lines = [
        [
            row.variant,
            row.baseline,
            row.dataset,
            property_title(row.property),
            str(row.n),
            f"{_signed(row.bias)} ({_signed(row.bias_low)} to {_signed(row.bias_high)})",
            f"{_signed(row.low)} to {_signed(row.high)}",
            row.unit,
        ]
        for row in rows
    ]
    head = ["variant", "against", "set", "property", "groups", "bias", "limits of agreement", "unit"]
    return _table("Agreement of the RMSE of groups (Bland and Altman), variant minus baseline", head, lines)


def _curve_table(rows: Sequence[CurveRow]) -> str:
    fractions = sorted({row.fraction for row in rows})
    by_key: dict[tuple[str, str, str], dict[float, CurveRow]] = {}
    for row in rows:
        by_key.setdefault((row.dataset, row.property, row.series), {})[row.fraction] = row
    lines = [
        [dataset, property_title(prop), series, *(_mean_and_sd(points.get(fraction)) for fraction in fractions)]
        for (dataset, prop, series), points in by_key.items()
    ]
    head = ["set", "property", "variant", *(f"{100 * fraction:g} %" for fraction in fractions)]
    return _table("RMSE against the fraction of the training data", head, lines)


def _cost_table(rows: Sequence[CostRow]) -> str:
    head = ["variant", "seeds", "structures", "steps", "wall time, s", "processor time, s", "step, ms", "epoch, s"]
    lines = [
        [
            row.variant,
            str(row.seeds),
            f"{row.structures:g}",
            f"{row.steps:g}",
            format_number(row.seconds),
            format_number(row.processor_seconds),
            format_number(None if row.step_seconds is None else 1e3 * row.step_seconds),
            format_number(row.epoch_seconds),
        ]
        for row in rows
    ]
    return _table("Cost of training, mean over seeds", head, lines)


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{format_percent(low)} to {format_percent(high)}"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + format_number(abs(value))


def format_p(value: float | None) -> str:
    """A probability.

    Args:
        value: the probability, or None.

    Returns:
        Two digits, or "< 0.0001"; a dash for None.
    """
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else format_number(value, 2)


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    rows = [f"| {' | '.join(cells)} |" for cells in [head, *escaped]]
    return "\n".join([f"## {title}\n", rows[0], "|" + "---|" * len(head), *rows[1:], ""])
