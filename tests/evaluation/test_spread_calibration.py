"""Spread of models and error of their mean, where both are proportional to one number."""

from __future__ import annotations

import pytest
import torch

from hesse.evaluation import spread_calibration
from hesse.labelling import teacher_labels
from oracles import Morse, labeled, molecules

STRUCTURES = molecules([3, 5, 4, 6], seed=2)
MEAN = teacher_labels(STRUCTURES, [Morse(depth=1.0), Morse(depth=3.0)], probes=2, hessian=True, quiet=True)


def test_ratio_and_order_are_exact_for_a_depth() -> None:
    """Everything is proportional to the depth: 2 ± √2 against 2.5, so that error / spread is 0.5/√2 everywhere."""
    truth = labeled(Morse(depth=2.5), STRUCTURES, probes=0, hessian=True)
    rows = {row.property: row for row in spread_calibration(truth, MEAN.labels)}
    assert rows.keys() == {"energy", "forces", "hvp", "hessian"}
    for row in rows.values():
        assert row.error_over_spread == pytest.approx(0.5 / 2**0.5, rel=1e-6)
        assert row.rank_correlation == pytest.approx(1.0)
        assert row.error == pytest.approx(row.spread * row.error_over_spread)
        assert row.n == 4
    assert rows["forces"].unit == "eV/Å"


def test_what_cannot_be_compared_is_left_out() -> None:
    truth = labeled(Morse(depth=2.5), STRUCTURES, probes=2, forces=False)  # products along other probes
    assert [row.property for row in spread_calibration(truth, MEAN.labels)] == ["energy"]
    one = teacher_labels(STRUCTURES, Morse(), probes=0, quiet=True)
    assert spread_calibration(truth, one.labels) == ()
    assert spread_calibration(truth[:2], MEAN[:2].labels) == ()


def test_equal_spreads_order_nothing() -> None:
    truth = labeled(Morse(depth=2.5), STRUCTURES, probes=0)
    labels = MEAN.labels.replace(forces_error=torch.ones(4, dtype=torch.float64))
    rows = {row.property: row for row in spread_calibration(truth, labels)}
    assert rows["forces"].rank_correlation == 0.0
