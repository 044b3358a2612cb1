"""Survival curves against SciPy's Kaplan-Meier estimate and exact binomial intervals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from hesse.errors import RequestError
from hesse.pes import compare_survival, survival_curve, survival_of_rows
from hesse.pes.md_survival import design_effect


def test_without_censoring_before_the_end_the_band_is_the_exact_binomial_one() -> None:
    times = np.array([1.0, 2.0, 2.0, 3.5, 5.0, 5.0, 5.0, 5.0])
    failed = times < 5.0
    curve = survival_curve(times, failed)
    assert curve.times.tolist() == [0.0, 1.0, 2.0, 3.5, 5.0]
    np.testing.assert_allclose(curve.fraction, [1, 7 / 8, 5 / 8, 4 / 8, 4 / 8])
    for fraction, low, high in zip(curve.fraction, curve.low, curve.high, strict=True):
        exact = stats.binomtest(round(8 * fraction), 8).proportion_ci(0.95, method="exact")
        assert (low, high) == pytest.approx((exact.low, exact.high))
    assert curve.median == 3.5
    assert (curve.n, curve.n_failed, curve.n_effective) == (8, 4, 8.0)
    assert survival_curve([1.0, 1.0], [True, True]).fraction.tolist() == [1.0, 0.0]
    assert survival_curve([1.0, 1.0], [True, True]).high[-1] == pytest.approx(1 - 0.025**0.5)
    assert survival_curve([2.0], [False]).median is None


def test_with_censoring_it_is_the_estimate_of_kaplan_and_meier_with_greenwoods_variance() -> None:
    rng = np.random.default_rng(0)
    times, failed = np.round(rng.exponential(3.0, 40), 1), rng.random(40) < 0.6
    curve = survival_curve(times, failed)
    data = stats.CensoredData.right_censored(times, ~failed)
    reference = stats.ecdf(data).sf
    np.testing.assert_allclose(curve.fraction[:-1], reference.evaluate(curve.times[:-1]), atol=1e-12)
    # SciPy's linear interval is 1.96 standard errors of Greenwood; a binomial of our number of trials has the same.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = reference.confidence_interval(0.95, method="linear")
    k = np.searchsorted(reference.quantiles, curve.times[3])
    sigma = (interval.high.probabilities[k] - interval.low.probabilities[k]) / (2 * stats.norm.ppf(0.975))
    s = curve.fraction[3]
    trials = s * (1 - s) / sigma**2
    low = stats.beta.ppf(0.025, trials * s, trials * (1 - s) + 1)
    assert curve.low[3] == pytest.approx(low, rel=1e-6)
    assert 38 < trials < 40.1


def test_the_band_covers_the_truth() -> None:
    """10 replicas that survive with 0.7: coverage of the exact interval is at least 95 %, 97 % here."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        times = np.where(rng.random(10) < 0.3, 1.0, 2.0)
        curve = survival_curve(times, times < 2.0)
        covered += curve.low[-1] <= 0.7 <= curve.high[-1]
    assert covered >= 280


def test_replicas_that_share_their_fate_count_once() -> None:
    names = [m for m in "abcdefgh" for _ in range(5)]
    by_molecule = np.repeat(np.arange(1.0, 9.0), 5)
    assert design_effect(by_molecule, names) == pytest.approx(5.0)
    curve = survival_curve(by_molecule, by_molecule < 5, names)
    alone = survival_curve(by_molecule[::5], by_molecule[::5] < 5)
    np.testing.assert_allclose(curve.low, alone.low)
    assert curve.n_effective == pytest.approx(8.0)
    rng = np.random.default_rng(0)
    effects = [design_effect(rng.random(40), names) for _ in range(200)]
    assert 1.0 <= np.median(effects) < 1.2
    assert design_effect(np.full(40, 3.0), names) == pytest.approx(5.0)  # nothing is known
    assert design_effect(np.arange(5.0), ["a"] * 5) == 1.0


def test_rows_and_their_comparison() -> None:
    def rows(shift):
        return [
            {"structure": name, "survived": False, "time": k + shift + 0.1 * seed}
            for k, name in enumerate("abcdefg")
            for seed in range(3)
        ] + [{"structure": "h", "survived": False, "time": None}]

    curve = survival_of_rows(rows(0.0))
    assert curve is not None
    assert (curve.n, curve.n_failed) == (21, 21)
    found = compare_survival(rows(0.0), rows(1.0))
    assert found is not None
    assert (found["molecules"], found["difference"]) == (7, pytest.approx(1.0))
    assert found["p_value"] == pytest.approx(2 / 2**7)
    assert compare_survival(rows(0.0), rows(0.0)) == {"molecules": 7, "difference": 0.0, "p_value": 1.0}
    assert compare_survival(rows(0.0)[:3], rows(1.0)) is None
    assert survival_of_rows([{"structure": "h", "survived": False, "time": None}]) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], []), "a time, a flag"),
        (([1.0], [True, False]), "a time, a flag"),
        (([-1.0], [True]), "zero or more"),
        (([np.nan], [True]), "zero or more"),
    ],
)
def test_invalid_input_gets_a_reply(arguments, words) -> None:
    with pytest.raises(RequestError, match=words):
        survival_curve(*arguments)
    with pytest.raises(RequestError, match="between 0 and 1"):
        survival_curve([1.0], [True], level=95)
