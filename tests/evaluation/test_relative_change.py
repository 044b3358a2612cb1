"""The confidence interval of the change from one potential to another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hesse.datasets import Dataset
from hesse.errors import RequestError
from hesse.evaluation import Evaluation, error_metrics, relative_rmse_change
from oracles import Morse, labeled, molecules


def evaluation(data: Dataset, forces_error: torch.Tensor) -> Evaluation:
    forces = data.labels.forces
    assert forces is not None
    predicted = data.labels.replace(forces=forces + forces_error)
    return Evaluation("set", data, predicted, tuple(error_metrics(data, predicted)))


def test_halved_errors_are_a_change_of_50_percent() -> None:
    data = labeled(Morse(), molecules([3, 4, 5]))
    error = torch.randn(12, 3, dtype=torch.float64)
    result = relative_rmse_change(evaluation(data, error), evaluation(data, 0.5 * error), "forces")
    assert result is not None
    assert (result.percent, result.ci_low, result.ci_high) == pytest.approx((-50.0, -50.0, -50.0))
    assert result.n_groups == 3
    assert relative_rmse_change(evaluation(data, error), evaluation(data, error), "hessian") is None
    assert relative_rmse_change(evaluation(data, 0 * error), evaluation(data, error), "forces") is None


def test_structures_of_one_molecule_are_drawn_together() -> None:
    data = labeled(Morse(), [*molecules([3, 3, 3], name=""), *molecules([3, 3], 1)])
    one = Dataset(tuple(replace(s, group="same") for s in data.structures), data.labels)
    error = torch.randn(15, 3, dtype=torch.float64)
    result = relative_rmse_change(evaluation(one, error), evaluation(one, error.square()), "forces")
    assert result is not None
    assert result.n_groups == 1
    assert np.isnan(result.ci_low)


def test_resamples_without_errors_of_the_baseline_are_left_out() -> None:
    """Two structures, one of them without error by the first potential: drawn twice it gives no ratio."""
    data = labeled(Morse(), molecules([3, 3]))
    old, new = torch.zeros(6, 3, dtype=torch.float64), torch.ones(6, 3, dtype=torch.float64)
    old[:3], new[:3] = 2.0, 1.0
    result = relative_rmse_change(evaluation(data, old), evaluation(data, new), "forces")
    assert result is not None
    change = 100 * (np.sqrt(2 / 4) - 1)
    assert (result.percent, result.ci_low, result.ci_high) == pytest.approx((change, -50.0, change))


def test_the_interval_has_the_stated_coverage() -> None:
    """Errors of both potentials vary from structure to structure; the true change is −50 %."""
    data = labeled(Morse(), molecules([2] * 40), probes=0)
    rng = np.random.default_rng(0)
    hits, trials = 0, 120
    for _ in range(trials):
        sizes = np.repeat(np.exp(0.4 * rng.normal(size=(2, 40))), 2, axis=1)[..., None]
        old, new = rng.normal(size=(2, 80, 3)) * sizes
        result = relative_rmse_change(
            evaluation(data, torch.from_numpy(old)),
            evaluation(data, torch.from_numpy(0.5 * new)),
            "forces",
            n_resamples=300,
        )
        assert result is not None
        hits += result.ci_low <= -50.0 <= result.ci_high
    # 0.95 within four binomial deviations, with some allowance for the small sample of a percentile interval.
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / trials) - 0.03 < hits / trials


def test_the_interval_is_reproducible() -> None:
    data = labeled(Morse(), molecules([3] * 6))
    pair = [evaluation(data, torch.randn(18, 3, dtype=torch.float64)) for _ in range(2)]
    assert relative_rmse_change(*pair, "forces") == relative_rmse_change(*pair, "forces")
    assert relative_rmse_change(*pair, "forces") != relative_rmse_change(*pair, "forces", seed=1)


def test_evaluations_of_different_structures_cannot_be_compared() -> None:
    first, second = (labeled(Morse(), molecules([3, 4], seed)) for seed in (0, 1))
    zeros = torch.zeros(7, 3, dtype=torch.float64)
    with pytest.raises(RequestError, match="different structures"):
        relative_rmse_change(evaluation(first, zeros + 1), evaluation(second, zeros + 1), "forces")
