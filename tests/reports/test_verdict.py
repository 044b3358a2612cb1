"""Grades of uses: the whole interval decides."""

from __future__ import annotations

import pytest

from hesse.evaluation import MetricRow
from hesse.reports.verdict import USES, Grade, judge_uses, summarize
from hesse.units import KCAL_PER_MOL


def row(prop: str, metric: str, unit: str, value: float, low: float | None, high: float | None) -> MetricRow:
    return MetricRow("set", "", prop, metric, value, unit, 10, low, high, 10)


@pytest.mark.parametrize(
    ("low", "high", "grade"),
    [
        (0.2, 1.0, Grade.GOOD),
        (0.5, 2.9, Grade.ROUGH),  # at least roughly, wherever the truth is
        (1.5, 2.5, Grade.ROUGH),
        (2.0, 4.0, Grade.OPEN),
        (0.5, 9.0, Grade.OPEN),
        (3.1, 4.0, Grade.BAD),
        (None, None, Grade.OPEN),
    ],
)
def test_errors(low: float | None, high: float | None, grade: Grade) -> None:
    ends = [None if v is None else v * KCAL_PER_MOL for v in (low, high)]
    (finding,) = judge_uses([row("barrier", "mae", "eV", KCAL_PER_MOL, *ends)])
    assert finding.grade is grade
    assert finding.value == "1.0 kcal/mol"
    assert finding.limits == "up to 1.0; 3.0 kcal/mol"
    ((_, text),) = summarize([finding])
    assert text.startswith("barriers at known geometries (")


@pytest.mark.parametrize(
    ("low", "high", "grade"),
    [
        (0.96, 1.02, Grade.GOOD),
        (0.92, 0.99, Grade.ROUGH),
        (0.91, 1.09, Grade.ROUGH),
        (0.5, 0.8, Grade.BAD),
        (1.2, 1.3, Grade.BAD),  # too stiff is wrong too
        (0.5, 1.5, Grade.OPEN),
    ],
)
def test_slopes(low: float, high: float, grade: Grade) -> None:
    (finding,) = judge_uses([row("projected_curvature", "slope", "1", 1.0, low, high)])
    assert finding.grade is grade
    assert finding.limits == "0.95 to 1.05; 0.90 to 1.10"
    assert finding.value == "1.00"


@pytest.mark.parametrize(
    ("low", "high", "grade"),
    [(0.9, 1.0, Grade.GOOD), (0.7, 1.0, Grade.ROUGH), (0.01, 0.9, Grade.OPEN), (0.1, 0.6, Grade.BAD)],
)
def test_fractions(low: float, high: float, grade: Grade) -> None:
    (finding,) = judge_uses([row("transition_states", "fraction_found", "1", 0.9, low, high)])
    assert (finding.grade, finding.value, finding.limits) == (grade, "90 %", "at least 90; 70 %")


def test_rows_of_tags_and_unknown_numbers_do_not_decide() -> None:
    tagged = MetricRow("set", "ts", "barrier", "mae", 0.1, "eV", 3, 0.1, 0.2, 3)
    assert judge_uses([tagged, row("dynamics", "fraction_survived", "1", 1.0, 0.9, 1.0)]) == []


def test_units_are_those_of_the_rows() -> None:
    assert {use.unit for use in USES} == {"eV", "eV/Å", "eV/Å²", "cm⁻¹", "1"}
    (finding,) = judge_uses([row("hessian", "mae", "eV/Å²", 0.02, 0.01, 0.03)])
    assert (finding.value, finding.interval) == ("0.020 eV/Å²", "0.010 to 0.030 eV/Å²")
    assert finding.grade is Grade.GOOD
