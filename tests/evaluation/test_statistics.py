"""Statistics against closed forms, tables and simulations with known power."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hesse.errors import ConfigError, RequestError
from hesse.evaluation.statistics import (
    bland_altman,
    bootstrap_rms_change,
    holm,
    mean_interval,
    paired_test,
    smallest_wilcoxon_p,
)


def test_the_mean_of_two_values_in_closed_form() -> None:
    """With one degree of freedom Student's distribution is Cauchy's, whose 97.5 % quantile is tan(0.475 π)."""
    result = mean_interval([1.0, 3.0])
    half = math.tan(0.475 * math.pi) * math.sqrt(2.0) / math.sqrt(2.0)
    assert (result.n, result.mean, result.sd) == (2, 2.0, pytest.approx(math.sqrt(2.0)))
    assert (result.low, result.high) == pytest.approx((2.0 - half, 2.0 + half))
    single = mean_interval([4.0])
    assert single.mean == 4.0
    assert math.isnan(single.sd)
    assert math.isnan(single.low)


def test_a_paired_test_in_closed_form() -> None:
    """Differences −1, −2, −3: t = −2 √3, and for two degrees of freedom p = 1 − |t| / √(2 + t²). All three signs are
    equal: 2 of 8 equally probable choices of signs are as extreme."""
    result = paired_test([5.0, 6.0, 7.0], [4.0, 4.0, 4.0])
    assert result.n == 3
    assert result.difference == -2.0
    assert result.sd == pytest.approx(1.0)
    assert result.t == pytest.approx(-2.0 * math.sqrt(3.0))
    assert result.p_t == pytest.approx(1.0 - 2.0 * math.sqrt(3.0) / math.sqrt(14.0))
    assert result.p_wilcoxon == pytest.approx(0.25)
    assert result.smallest_p_wilcoxon == 0.25
    half = (result.high - result.low) / 2
    assert half == pytest.approx(4.302652729911275 / math.sqrt(3.0))  # tabulated quantile, two degrees of freedom


def test_five_seeds_of_one_sign_reach_one_sixteenth_only() -> None:
    """However large the differences are, Wilcoxon's test of five pairs cannot go below 0.0625."""
    result = paired_test([10.0, 11.0, 12.0, 13.0, 14.0], [1.0, 1.1, 1.2, 1.4, 1.5])
    assert result.p_t < 1e-4
    assert result.p_wilcoxon == result.smallest_p_wilcoxon == smallest_wilcoxon_p(5) == 0.0625


def test_differences_without_scatter_have_no_t() -> None:
    equal = paired_test([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])
    assert math.isnan(equal.p_t)
    assert equal.p_wilcoxon == pytest.approx(0.25)
    same = paired_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert same.difference == 0.0
    assert math.isnan(same.p_t)
    assert math.isnan(same.p_wilcoxon)


@pytest.mark.parametrize("pairs", [1, 2])
def test_fewer_than_three_pairs_are_refused(pairs: int) -> None:
    values = np.arange(pairs, dtype=float)
    with pytest.raises(RequestError, match=rf"{pairs} pairs: a paired test needs 3 or more"):
        paired_test(values, values + 1)
    with pytest.raises(RequestError, match=r"need 3 or more"):
        bland_altman(values, values + 1)


def test_wrong_values_get_a_reply() -> None:
    with pytest.raises(RequestError, match="got 3 and 2"):
        paired_test([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(RequestError, match="second: number 1 is not finite"):
        paired_test([1.0, 2.0, 3.0], [1.0, math.nan, 2.0])
    with pytest.raises(RequestError, match="expected a list of numbers"):
        mean_interval("abc")
    with pytest.raises(RequestError, match="shape"):
        mean_interval([])
    with pytest.raises(ConfigError, match=r"between 0 and 1.*95"):
        mean_interval([1.0, 2.0], confidence=95)
    with pytest.raises(RequestError, match="probabilities"):
        holm([0.1, 1.2])


@pytest.mark.slow
def test_the_size_of_both_tests_is_as_stated() -> None:
    """Eight pairs without a difference: p below 0.05 in 5 % of 1,000 repetitions by the t test, and in 3.9 % (10 of 256
    choices of signs) by Wilcoxon's; three standard errors are allowed."""
    rng = np.random.default_rng(1)
    first, difference = rng.normal(size=(2, 1000, 8))
    results = [paired_test(x, x + d) for x, d in zip(first, difference, strict=True)]
    for p, expected in (([r.p_t for r in results], 0.05), ([r.p_wilcoxon for r in results], 10 / 256)):
        rate = np.mean(np.array(p) <= 0.05)
        assert abs(rate - expected) < 3 * math.sqrt(expected * (1 - expected) / 1000)


@pytest.mark.slow
def test_the_power_of_the_t_test_is_that_of_the_noncentral_t_distribution() -> None:
    """Five pairs whose mean difference is 1.5 standard deviations: power 0.7477 at 5 % (noncentral t distribution)."""
    from scipy import stats

    critical, shift = stats.t.ppf(0.975, 4), 1.5 * math.sqrt(5)
    power = stats.nct.sf(critical, 4, shift) + stats.nct.cdf(-critical, 4, shift)
    rng = np.random.default_rng(2)
    first = rng.normal(3.0, 2.0, size=(1000, 5))  # scatter that pairs have in common does not matter
    second = first + rng.normal(1.5, 1.0, size=(1000, 5))
    rate = np.mean([paired_test(a, b).p_t <= 0.05 for a, b in zip(first, second, strict=True)])
    assert abs(rate - power) < 3 * math.sqrt(power * (1 - power) / 1000)


def test_intervals_cover_the_mean_as_often_as_stated() -> None:
    rng = np.random.default_rng(3)
    intervals = [mean_interval(x, confidence=0.9) for x in rng.normal(7.0, 2.0, size=(2000, 4))]
    covered = np.mean([i.low <= 7.0 <= i.high for i in intervals])
    assert abs(covered - 0.9) < 3 * math.sqrt(0.09 / 2000)


def test_holm_of_a_worked_example() -> None:
    """0.01, 0.04, 0.03, 0.005 (the usual example): 4 x 0.005, 3 x 0.01, 2 x 0.03, and never less than before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    with_gap = holm([0.01, math.nan, 0.04])
    assert with_gap[0] == pytest.approx(0.02)
    assert math.isnan(with_gap[1])
    assert with_gap[2] == pytest.approx(0.04)


def test_holm_keeps_the_rate_of_any_false_finding() -> None:
    """Ten tests without a difference: an adjusted p is below 0.05 in 5 % of the repetitions, where plain ones are
    below in 40 %."""
    p = np.random.default_rng(4).uniform(size=(2000, 10))
    adjusted = np.mean([min(holm(row)) <= 0.05 for row in p.tolist()])
    assert abs(adjusted - (1 - (1 - 0.005) ** 10)) < 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert np.mean(p.min(axis=1) <= 0.05) > 0.35


def test_limits_of_agreement_in_closed_form() -> None:
    result = bland_altman([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 5.0, 5.0])
    assert result.n == 4
    assert result.means.tolist() == [1.5, 2.0, 4.0, 4.5]
    assert result.differences.tolist() == [1.0, 0.0, 2.0, 1.0]
    sd = math.sqrt(2 / 3)
    assert result.bias == 1.0
    assert (result.low, result.high) == pytest.approx((1 - 1.959963984540054 * sd, 1 + 1.959963984540054 * sd))
    t = 3.182446305284263  # tabulated, three degrees of freedom
    assert result.bias_high == pytest.approx(1 + t * sd / 2)
    assert result.limit_error == pytest.approx(t * sd * math.sqrt(1 / 4 + 1.959963984540054**2 / 6))


def test_limits_of_agreement_hold_95_percent_of_the_differences() -> None:
    rng = np.random.default_rng(5)
    result = bland_altman(rng.normal(size=4000), rng.normal(0.5, 2.0, size=4000))
    inside = np.mean((result.differences > result.low) & (result.differences < result.high))
    assert abs(inside - 0.95) < 0.015
    assert result.bias_low < 0.5 < result.bias_high


def test_the_bootstrap_interval_covers_the_change() -> None:
    """Two hundred groups with exponential sums, the second potential half of the first on average (−29.3 % in the root
    mean square): the 90 % interval holds the true change in 90 % of 200 repetitions, within three standard errors.
    (With 40 such groups, percentiles of the bootstrap cover 84 % only.)"""
    rng = np.random.default_rng(6)
    true = 100 * (math.sqrt(0.5) - 1)
    covered = 0
    for k in range(200):
        before = rng.exponential(size=200)
        after = 0.5 * before * rng.gamma(4.0, 0.25, size=200)
        low, high = bootstrap_rms_change(before, after, confidence=0.9, n_resamples=200, seed=k)
        covered += low <= true <= high
    assert abs(covered / 200 - 0.9) < 3 * math.sqrt(0.09 / 200)


def test_the_bootstrap_of_groups_without_scatter_is_exact() -> None:
    assert all(math.isnan(x) for x in bootstrap_rms_change(np.ones(1), np.ones(1)))
    assert bootstrap_rms_change(np.ones(5), np.full(5, 0.25)) == pytest.approx((-50.0, -50.0))
