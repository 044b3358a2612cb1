"""Tables of suites."""

from __future__ import annotations

import pytest

from hesse.evaluation import MetricRow
from hesse.evaluation.level_spread import level_spread_row
from hesse.reports import print_tables, suite_tables

ROWS = [
    MetricRow("set", "", "hessian", "mae", 0.2, "eV/Å²", 900, 0.1, 0.3, 4),
    MetricRow("set", "", "barrier", "mae", 0.1, "eV", 7, 0.05, 0.2, 7),
    MetricRow("set", "", "barrier", "noise_floor", 0.01, "eV", 7),
    MetricRow("set", "ts", "frequencies", "mae", 55.5, "cm⁻¹", 3),
    MetricRow("set", "", "frequencies", "mae", 44.4, "cm⁻¹", 5),
    MetricRow("other", "", "frequencies", "mae", 33.3, "cm⁻¹", 5),
    MetricRow("set", "", "negative_modes", "fraction_right", 0.5, "1", 2, 0.1, 0.9, 2),
]


def test_numbers_have_intervals_units_and_noise(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(suite_tables([*ROWS, level_spread_row("set")]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["barrier,", "MAE", "0.100", "0.0500", "to", "0.200", "eV", "7", "0.0100"] in lines
    assert ["2.31", "1.15", "to", "4.61", "kcal/mol", "0.231"] in lines
    assert ["frequencies,", "MAE", "44.4", "cm⁻¹", "5"] in lines
    assert ["right", "number", "of", "negative", "50.0", "10.0", "to", "90.0", "%", "2"] in lines
    assert ["modes"] in lines
    assert ["the", "model,", "set", "0.200"] in lines
    assert ["wB97M-V", "0.0380"] in lines
    assert ["g-xTB", "0.303"] in lines
    assert ["set", "·", "curvature"] in lines
    assert ["other", "·", "curvature"] in lines
    assert not any("55.5" in line for line in lines)


def test_errors_of_labels_alone_have_no_such_table() -> None:
    assert list(suite_tables(ROWS[:1])) == []
