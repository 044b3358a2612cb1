"""Comparison of runs: errors, changes against a baseline with their statistics, learning curves, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hesse.errors import RequestError, did_you_mean
from hesse.recipes.judging import Suite
from hesse.reports.formatting import format_percent, property_title
from hesse.runtime.short_repr import ShortRepr
from hesse.studies.cells import cell_name
from hesse.studies.comparison_notes import comparison_notes
from hesse.studies.comparison_rows import AgreementRow, ChangeRow, CostRow, CurveRow, ErrorRow
from hesse.studies.runs import ComparedRun, RunSet, RunSource, read_runs
from hesse.studies.study_config import Label
from hesse.studies.variant_statistics import (
    NOT_TESTED,
    Variants,
    agreement_rows,
    change_rows,
    cost_row,
    curve_rows,
    error_rows,
    with_holm,
)

__all__ = ["StudyComparison", "compare", "compare_runs"]


@dataclass(frozen=True, eq=False, repr=False)
class StudyComparison(ShortRepr):
    """Comparison of runs.

    Attributes:
        title: what is compared.
        variants: runs by name of the variant, in the order of their seeds.
        baselines: name of the baseline of each variant that has one.
        errors: errors of all variants.
        changes: changes against the baselines.
        agreement: agreement with the baselines over groups.
        curves: learning curves; empty if the runs have the same fraction of the data.
        costs: time of all variants.
        failed: reasons by name of cells that failed.
        missing: names of cells that are not done.
        notes: what to know when reading the numbers.
        is_study: whether the variants are those of a study, whose names are those of the folders of their runs.
    """

    title: str
    variants: Mapping[str, tuple[ComparedRun, ...]]
    baselines: Mapping[str, str]
    errors: tuple[ErrorRow, ...]
    changes: tuple[ChangeRow, ...]
    agreement: tuple[AgreementRow, ...]
    curves: tuple[CurveRow, ...]
    costs: tuple[CostRow, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_study: bool = False

    @cached_property
    def crossings(self) -> tuple[str, ...]:
        """With how much of the data variants reach the mean error of their baseline with all data."""
        return tuple(_crossings(self))

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """The numbers in words, a sentence for each variant and test set."""
        return tuple(_verdicts(self))

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain values, as in `comparison.json`.

        Returns:
            A dictionary of lists of rows.
        """
        return {
            "title": self.title,
            "verdicts": list(self.verdicts),
            "crossings": list(self.crossings),
            "notes": list(self.notes),
            "variants": [
                {
                    "name": name,
                    "labels": dict(runs[0].labels),
                    "baseline": self.baselines.get(name),
                    "runs": [{"folder": str(run.folder), "seed": run.seed} for run in runs],
                }
                for name, runs in self.variants.items()
            ],
            "errors": [asdict(row) for row in self.errors],
            "changes": [asdict(row) for row in self.changes],
            "agreement": [asdict(row) for row in self.agreement],
            "learning_curves": [asdict(row) for row in self.curves],
            "costs": [asdict(row) for row in self.costs],
            "failed": dict(self.failed),
            "missing": list(self.missing),
        }

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write the comparison as JSON, CSV, Markdown and a page.

        Args:
            folder: the folder; created if necessary.

        Returns:
            The files.

        Raises:
            WriteError: a file cannot be written.
        """
        from hesse.studies.comparison_files import write_comparison

        return write_comparison(self, Path(folder))

    def markdown(self) -> str:
        """The tables as Markdown.

        Returns:
            The text.
        """
        from hesse.studies.comparison_files import markdown_report

        return markdown_report(self)


def compare(
    *runs: RunSource | Sequence[RunSource],
    data: str | Path | Sequence[str | Path] | Mapping[str, str | Path] = (),
    baseline: str | Path | Mapping[str, Label] | None = None,
    suite: Suite = "basic",
    hessian: bool = True,
    quiet: bool = True,
) -> StudyComparison:
    """Compare trained potentials: errors, changes against a baseline with statistics over seeds and over molecules,
    learning curves and costs.

    Runs that differ in their seed only are repetitions of one variant. Runs of the same seed are pairs in all tests.

    Args:
        *runs: the folder of a study, or folders (or results) of runs, one after the other or as a list.
        data: test sets, files or files by name. By default those of the study, or the validation data that all runs
            have in common.
        baseline: name of the variant to compare all others with, or the folder of one of its runs, or the values of
            axes that make a variant a baseline: `{"scheme": "ef"}` compares each variant with that of the scheme ef
            which is otherwise the same. By default that of the study, or the first scheme, or the first value of the
            first axis; where this compares nothing, the first variant.
        suite: what is judged on `data`, see `hesse.evaluate`; the test sets of a study have their own.
        hessian: also errors of Hessians.
        quiet: no progress.

    Returns:
        The comparison; `write` writes it as files.

    Raises:
        FileFormatError: not the folder of a run or study, or a damaged record.
        RequestError: no finished run, the same run twice, runs without a common test set, or no such baseline.
        MissingLabelError: test data without what the suite compares.
    """
    if not isinstance(baseline, str | Path | Mapping | None):
        raise RequestError(
            "baseline: expected the name of a variant, the folder of a run, or values of axes ({'scheme': 'ef'}), got "
            f"{baseline!r}"
        )
    sources: list[Any] = []
    for source in runs:
        sources += source if isinstance(source, list | tuple) else [source]
    return compare_runs(read_runs(sources, data, suite=suite, hessian=hessian, quiet=quiet), baseline)


def compare_runs(runs: RunSet, baseline: str | Path | Mapping[str, Label] | None = None) -> StudyComparison:
    """Compare runs that were read.

    Args:
        runs: the runs.
        baseline: see `compare`.

    Returns:
        The comparison.

    Raises:
        RequestError: no such baseline.
    """
    variants: dict[str, tuple[ComparedRun, ...]] = {}
    for run in runs.runs:
        variants[run.variant] = tuple(sorted((*variants.get(run.variant, ()), run), key=lambda r: r.seed))
    baselines = _find_baselines(variants, runs.baseline if baseline is None else baseline)
    changes = [row for name, base in baselines.items() for row in change_rows(name, base, variants)]
    return StudyComparison(
        title=runs.title,
        variants=variants,
        baselines=baselines,
        errors=tuple(row for name, members in variants.items() for row in error_rows(name, members)),
        changes=with_holm(changes),
        agreement=tuple(row for name, base in baselines.items() for row in agreement_rows(name, base, variants)),
        curves=tuple(curve_rows(variants)),
        costs=tuple(cost_row(name, members) for name, members in variants.items()),
        failed=runs.failed,
        missing=runs.missing,
        notes=(*runs.notes, *comparison_notes(variants, baselines, changes)),
        is_study=runs.is_study,
    )


def _find_baselines(variants: Variants, baseline: str | Path | Mapping[str, Label]) -> dict[str, str]:
    """Name of the baseline of each variant that is not one itself."""
    if isinstance(baseline, str | Path):
        chosen = _variant_of(variants, baseline)
        return {name: chosen for name in variants if name != chosen}
    labels = {name: dict(members[0].labels) for name, members in variants.items()}
    axes = list(dict.fromkeys(axis for each in labels.values() for axis in each))
    if not baseline:
        if not axes:
            return {}
        axis = "scheme" if "scheme" in axes else next((a for a in axes if a != "data_fraction"), axes[0])
        baseline = {axis: next(each[axis] for each in labels.values() if axis in each)}
        first = next(iter(variants))
        return _matching_baselines(labels, baseline) or {name: first for name in variants if name != first}
    for axis, label in baseline.items():
        if axis not in axes:
            raise RequestError(f"baseline: no axis {axis!r} here. {did_you_mean(axis, axes)}")
        if not any(each.get(axis) == label for each in labels.values()):
            known = list(dict.fromkeys(str(each[axis]) for each in labels.values() if axis in each))
            raise RequestError(f"baseline, {axis}: no variant with {label!r}. {did_you_mean(str(label), known)}")
    return _matching_baselines(labels, baseline)


def _variant_of(variants: Variants, name: str | Path) -> str:
    """The variant with this name, or with a run in this folder."""
    if str(name) in variants:
        return str(name)
    folder = Path(name).resolve()
    found = next((v for v, members in variants.items() if any(run.folder.resolve() == folder for run in members)), None)
    if found is None:
        raise RequestError(
            f"no variant {str(name)!r} as baseline, and none of these runs is in a folder of this name. "
            f"{did_you_mean(str(name), list(variants))}"
        )
    return found


def _matching_baselines(labels: Mapping[str, Mapping[str, Label]], baseline: Mapping[str, Label]) -> dict[str, str]:
    """For each variant that is no baseline the one that is, and is otherwise the same."""
    result = {}
    for name, own in labels.items():
        requested = {**own, **baseline}
        if all(own.get(axis) == label for axis, label in baseline.items()):
            continue
        # An axis that has no effect on the baseline (probes of E-F) is not among its labels.
        matches = [n for n, each in labels.items() if all(requested.get(axis) == label for axis, label in each.items())]
        matches = [n for n in matches if all(labels[n].get(axis) == label for axis, label in baseline.items())]
        if matches:
            result[name] = max(matches, key=lambda n: len(labels[n]))
    return result


def _verdicts(comparison: StudyComparison) -> list[str]:
    lines = []
    for name, base in comparison.baselines.items():
        rows = [row for row in comparison.changes if row.variant == name]
        for dataset in dict.fromkeys(row.dataset for row in rows):
            by_verdict: dict[str, list[str]] = {}
            for row in rows:
                if row.dataset == dataset and row.percent is not None:
                    word = f"{property_title(row.property)} {format_percent(row.percent)}"
                    by_verdict.setdefault(row.verdict, []).append(word)
            parts = [f"{verdict}: {', '.join(words)}" for verdict, words in by_verdict.items()]
            lines.append(f"{name} against {base} on {dataset}: {'; '.join(parts)}.")
    return lines


def _crossings(comparison: StudyComparison) -> list[str]:
    """At which fraction of the data a series has passed its baseline with all data."""
    lines = []
    pairs = {
        (_series(comparison.variants[name]), _series(comparison.variants[base]))
        for name, base in comparison.baselines.items()
    }
    for series, base in sorted(pairs):
        for key in dict.fromkeys((row.dataset, row.property) for row in comparison.curves):
            points, against = (
                {
                    row.fraction: row.mean
                    for row in comparison.curves
                    if (row.series, row.dataset, row.property) == (name, *key)
                }
                for name in (series, base)
            )
            if series == base or len(points) < 2 or not against or key[1] in NOT_TESTED:
                continue
            largest = max(against)
            passed = next((f for f in sorted(points) if points[f] <= against[largest]), None)
            amount = "no part" if passed is None else f"{100 * passed:g} %"
            lines.append(
                f"{key[0]}, {property_title(key[1])}: {series} reaches the mean error of {base} with "
                f"{100 * largest:g} % of the data with {amount} of them"
            )
    return lines


def _series(members: Sequence[ComparedRun]) -> str:
    return cell_name({axis: label for axis, label in members[0].labels.items() if axis != "data_fraction"})
