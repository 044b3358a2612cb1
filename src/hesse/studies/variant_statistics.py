"""Numbers of a comparison from runs that are grouped by variant (what runs of several seeds have in common)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hesse.evaluation import property_names
from hesse.evaluation.statistics import (
    MIN_PAIRS,
    bland_altman,
    bootstrap_rms_change,
    holm,
    mean_interval,
    paired_test,
)
from hesse.recipes.set_errors import SetErrors
from hesse.studies.cells import cell_name
from hesse.studies.comparison_rows import AgreementRow, ChangeRow, CostRow, CurveRow, ErrorRow
from hesse.studies.runs import ComparedRun

__all__ = [
    "SIGNIFICANT",
    "Variants",
    "agreement_rows",
    "change_rows",
    "cost_row",
    "curve_rows",
    "error_rows",
    "has_common_seed",
    "with_holm",
]

SIGNIFICANT: Final = 0.05
"""Adjusted probability below which a change is called a finding."""

NOT_TESTED: Final = ("energy_per_atom",)
"""Properties whose changes say the same as those of another one, so that they would only make the family larger."""

_OF_LABELS: Final = ("noise_floor", "level_spread")
"""Rows of an evaluation that do not depend on the model."""

Variants = Mapping[str, Sequence[ComparedRun]]


def _datasets(members: Sequence[ComparedRun]) -> list[str]:
    return [name for name in members[0].errors if all(name in run.errors for run in members)]


def error_rows(name: str, members: Sequence[ComparedRun]) -> list[ErrorRow]:
    """Errors of the runs of a variant.

    Args:
        name: name of the variant.
        members: its runs.

    Returns:
        A row for each test set, property and metric that all runs have.
    """
    rows = []
    for dataset in _datasets(members):
        first = members[0].errors[dataset]
        for prop, metric in dict.fromkeys((row.property, row.metric) for row in first.rows):
            if metric not in _OF_LABELS:
                of_runs = [run.errors[dataset].row(prop, metric) for run in members]
                values = tuple(row.value for row in of_runs if row is not None)
                if len(values) < len(members) or of_runs[0] is None:
                    continue
                summary, floor = mean_interval(values), first.row(prop, "noise_floor")
                rows.append(
                    ErrorRow(
                        name, dataset, prop, metric, of_runs[0].unit, len(values), summary.mean, _known(summary.sd),
                        _known(summary.low), _known(summary.high), None if floor is None else floor.value,
                        first.structures, values,
                    )
                )  # fmt: skip
    return rows


def has_common_seed(name: str, base: str, variants: Variants) -> bool:
    """Whether a run of a variant has the seed of a run of its baseline.

    Args:
        name: name of the variant.
        base: name of the baseline.
        variants: runs by name of the variant.

    Returns:
        True if one has.
    """
    return bool({run.seed for run in variants[name]} & {run.seed for run in variants[base]})


def _pairs(name: str, base: str, variants: Variants) -> list[tuple[ComparedRun, ComparedRun]]:
    """Runs of the baseline and of the variant with the same seed; single runs are a pair whatever their seeds are."""
    if len(variants[base]) == len(variants[name]) == 1:
        return [(variants[base][0], variants[name][0])]
    by_seed = {run.seed: run for run in variants[base]}
    return [(by_seed[run.seed], run) for run in variants[name] if run.seed in by_seed]


def change_rows(name: str, base: str, variants: Variants) -> list[ChangeRow]:
    """Changes from a baseline to a variant, without correction for many tests.

    Args:
        name: name of the variant.
        base: name of the baseline.
        variants: runs by name of the variant.

    Returns:
        A row for each test set and property; none if no seed is common to both.
    """
    pairs = _pairs(name, base, variants)
    if not pairs:
        return []
    rows = []
    for dataset in _datasets([run for pair in pairs for run in pair]):
        for prop, metric in _compared_metrics(pairs[0][0].errors[dataset]):
            row_pairs = [[run.errors[dataset].row(prop, metric) for run in pair] for pair in pairs]
            values = [(old.value, new.value) for old, new in row_pairs if old is not None and new is not None]
            if len(values) == len(pairs):
                before, after = np.array(values).T
                sets = [(old.errors[dataset], new.errors[dataset]) for old, new in pairs]
                rows.append(_change(name, base, dataset, prop, metric, before, after, sets))
    return rows


def _compared_metrics(errors: SetErrors) -> list[tuple[str, str]]:
    """Properties whose changes are tested, each with one metric: root mean squares of labels; of what a suite adds
    (frequencies, barriers) mean absolute errors, or root mean squares where there are none. Other numbers (slopes,
    fractions) are no errors, which are better if they are smaller."""
    known = {(row.property, row.metric) for row in errors.rows}
    result = {}
    for prop, _ in ((row.property, row.metric) for row in errors.rows):
        order = ("rmse",) if prop in property_names() else ("mae", "rmse")
        metric = next((metric for metric in order if (prop, metric) in known), None)
        if metric is not None and prop not in NOT_TESTED:
            result[prop] = metric
    return list(result.items())


def _change(
    name: str,
    base: str,
    dataset: str,
    prop: str,
    metric: str,
    before: Any,
    after: Any,
    sets: Sequence[tuple[SetErrors, SetErrors]],
) -> ChangeRow:
    percent = seed_low = seed_high = None
    if before.min() > 0:
        percent = float(100.0 * (after.mean() / before.mean() - 1.0))
        over_seeds = mean_interval(100.0 * (after / before - 1.0))
        seed_low, seed_high = _known(over_seeds.low), _known(over_seeds.high)
    low = high = math.nan
    n_groups = 0
    if metric == "rmse" and all(prop in errors.squared for pair in sets for errors in pair):
        # Groups of all seeds together: the interval is that of the mean change, for other molecules.
        old, new = (sum(pair[side].squared[prop] for pair in sets) for side in (0, 1))
        labeled = sets[0][0].counts[prop] > 0
        n_groups = int(labeled.sum())
        low, high = bootstrap_rms_change(np.asarray(old)[labeled], np.asarray(new)[labeled])
    t = p_t = p_wilcoxon = smallest = None
    untested = f"{len(before)} of {MIN_PAIRS} pairs of seeds that a test needs" if len(before) < MIN_PAIRS else ""
    if not untested:
        test = paired_test(before, after)
        t, p_t, p_wilcoxon = _known(test.t), _known(test.p_t), _known(test.p_wilcoxon)
        smallest = test.smallest_p_wilcoxon
        untested = "" if p_t is not None else "all differences are equal"
    return ChangeRow(
        name, base, dataset, prop, metric, len(before), percent, seed_low, seed_high, _known(low), _known(high),
        n_groups, t, p_t, None, p_wilcoxon, None, smallest, untested, "",
    )  # fmt: skip


def with_holm(rows: Sequence[ChangeRow]) -> tuple[ChangeRow, ...]:
    """Correct the probabilities of tests for their number (Holm), and draw the conclusion of each row.

    Args:
        rows: all rows of a comparison, which are one family of tests.

    Returns:
        The rows with corrected probabilities and verdicts.
    """
    t = holm([math.nan if row.p_t is None else row.p_t for row in rows])
    wilcoxon = holm([math.nan if row.p_wilcoxon is None else row.p_wilcoxon for row in rows])
    return tuple(
        replace(row, p_t_holm=_known(p), p_wilcoxon_holm=_known(q), verdict=_verdict(row, _known(p)))
        for row, p, q in zip(rows, t, wilcoxon, strict=True)
    )


def _verdict(row: ChangeRow, p: float | None) -> str:
    """See `ChangeRow.verdict`."""
    if row.percent is None or row.percent == 0:
        return "no clear difference"
    side = "better" if row.percent < 0 else "worse"
    excludes_zero = None
    if row.group_low is not None and row.group_high is not None:
        excludes_zero = row.group_high < 0 or row.group_low > 0
    if p is None:
        return f"{side} on these structures" if excludes_zero else "no clear difference"
    return side if p <= SIGNIFICANT and excludes_zero is not False else "no clear difference"


def agreement_rows(name: str, base: str, variants: Variants) -> list[AgreementRow]:
    """Agreement of a variant with its baseline over the groups of the test sets.

    Args:
        name: name of the variant.
        base: name of the baseline.
        variants: runs by name of the variant.

    Returns:
        A row for each test set and property with three groups or more.
    """
    pairs = _pairs(name, base, variants)
    rows = []
    for dataset in _datasets([run for pair in pairs for run in pair]) if pairs else ():
        first = pairs[0][0].errors[dataset]
        for prop in first.squared:
            row = first.row(prop)
            if prop in NOT_TESTED or row is None:
                continue
            labeled = first.counts[prop] > 0
            if labeled.sum() < MIN_PAIRS:
                continue
            old, new = (
                np.sqrt(
                    sum(pair[side].errors[dataset].squared[prop][labeled] for pair in pairs)
                    / (len(pairs) * first.counts[prop][labeled])
                )
                for side in (0, 1)
            )
            result = bland_altman(old, new)
            names = tuple(group for group, known in zip(first.groups, labeled, strict=True) if known)
            rows.append(
                AgreementRow(
                    name, base, dataset, prop, row.unit, result.n, result.bias, result.bias_low, result.bias_high,
                    result.low, result.high, result.limit_error, names, tuple(result.means.tolist()),
                    tuple(result.differences.tolist()),
                )
            )  # fmt: skip
    return rows


def curve_rows(variants: Variants) -> list[CurveRow]:
    """Learning curves: errors against the fraction of the training data.

    Args:
        variants: runs by name of the variant.

    Returns:
        The points, sorted by test set, property, series and fraction.
    """
    rows = []
    for name, members in variants.items():
        labels = dict(members[0].labels)
        if "data_fraction" not in labels:
            continue
        fraction = float(labels.pop("data_fraction"))
        structures = float(np.mean([run.structures for run in members]))
        rows += [
            CurveRow(
                cell_name(labels),
                fraction,
                structures,
                row.dataset,
                row.property,
                row.unit,
                row.seeds,
                row.mean,
                row.sd,
            )
            for row in error_rows(name, members)
            if row.metric == "rmse" and row.property in property_names()
        ]
    return sorted(rows, key=lambda row: (row.dataset, property_names().index(row.property), row.series, row.fraction))


def cost_row(name: str, members: Sequence[ComparedRun]) -> CostRow:
    """Cost of the runs of a variant.

    Args:
        name: name of the variant.
        members: its runs.

    Returns:
        Means over the runs.
    """

    def mean(values: Sequence[float]) -> float | None:
        return _known(float(np.mean(values)))

    return CostRow(
        name,
        len(members),
        float(np.mean([run.structures for run in members])),
        float(np.mean([run.steps for run in members])),
        mean([run.seconds for run in members]),
        mean([run.processor_seconds for run in members]),
        mean([run.step_seconds for run in members]),
        mean([run.epoch_seconds for run in members]),
    )


def _known(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return value if math.isfinite(value) else None
