"""Rows of dynamics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hesse.datasets import Dataset
from hesse.evaluation.survival import starting_molecules, survival_metrics
from hesse.pes import survival_of_rows
from hesse.structures import Properties
from oracles import molecules


def replica(structure: str, seed: int, survived: bool, time: float | None, temperature: float | None) -> dict[str, Any]:
    return {"structure": structure, "seed": seed, "survived": survived, "time": time, "temperature": temperature}


ROWS = [
    replica("a", 0, True, 1.8, 3000.0),
    replica("a", 1, False, 0.9, 1500.0),
    replica("b", 0, False, 0.3, 600.0),
    replica("b", 1, False, 0.6, 900.0),
    replica("c", 0, False, None, None),
    replica("c", 1, False, None, None),
]


def test_fractions_and_temperatures() -> None:
    rows = {(row.property, row.metric): row for row in survival_metrics(ROWS, "set")}
    started, survived = rows["dynamics", "fraction_started"], rows["dynamics", "fraction_survived"]
    assert (started.value, started.n) == (pytest.approx(2 / 3), 3)
    assert (survived.value, survived.n, survived.groups) == (0.25, 4, 2)
    curve = survival_of_rows(ROWS)
    assert curve is not None
    assert (survived.ci_low, survived.ci_high) == (curve.low[-1], curve.high[-1])
    assert curve.fraction[-1] == survived.value
    temperature = rows["failure_temperature", "mean"]
    assert (temperature.value, temperature.unit) == (1500.0, "K")
    assert temperature.groups == 2  # two molecules with means of 2250 and 750 K
    assert temperature.ci_low == 0.0
    assert temperature.ci_high == pytest.approx(1500.0 + 12.706 * 750.0, rel=1e-4)


def test_nothing_that_started_has_no_survival() -> None:
    (row,) = survival_metrics(ROWS[4:], "set", intervals=False)
    assert (row.metric, row.value, row.ci_low) == ("fraction_started", 0.0, None)


def test_bonds_that_change_in_the_relaxation_are_a_failure_at_time_zero() -> None:
    more = [*ROWS, replica("d", 0, False, 0.0, None), replica("d", 1, False, 0.0, None)]
    rows = {(row.property, row.metric): row for row in survival_metrics(more, "set")}
    assert rows["dynamics", "fraction_started"].value == 0.5
    assert rows["dynamics", "fraction_survived"].value == pytest.approx(1 / 6)
    assert rows["failure_temperature", "mean"].value == 1500.0


def test_dynamics_starts_from_one_minimum_of_each_group() -> None:
    tags = [("x", "ts"), ("x", "product"), ("x", "reactant"), ("y", "ts"), ("", "ts"), ("", "")]
    structures = [replace(s, group=group, tag=tag) for s, (group, tag) in zip(molecules([3] * 6), tags, strict=True)]
    labels = [Properties.single(3, forces=torch.zeros(3, 3), structure_id=s.id) for s in structures]
    data = Dataset.from_pairs(list(zip(structures, labels, strict=True)), level="none")
    assert starting_molecules(data) == [1, 3, 4, 5]
