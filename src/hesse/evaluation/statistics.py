"""Statistics of repeated measurements: tests of paired differences, agreement, corrections for many tests, bootstrap.

Pure functions of arrays, on top of SciPy. Pairs are runs of the same seed, or the same molecule by two potentials. A
test that the number of pairs cannot support is refused (`RequestError`), not computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, RequestError

__all__ = [
    "MIN_PAIRS",
    "BlandAltman",
    "MeanInterval",
    "PairedTest",
    "bland_altman",
    "bootstrap_rms_change",
    "holm",
    "mean_interval",
    "paired_test",
    "smallest_wilcoxon_p",
]

MIN_PAIRS = 3
"""Pairs that a test needs: with two, one degree of freedom is left to estimate the scatter from."""

_EXACT = 1e-12
"""Scatter of the differences, relative to the numbers themselves, below which they are equal but for rounding."""


@dataclass(frozen=True)
class MeanInterval:
    """Mean of a few values with its confidence interval.

    Attributes:
        n: number of values.
        mean: their mean.
        sd: their standard deviation (with n − 1); NaN for one value.
        low, high: confidence interval of the mean by Student's t distribution; NaN for one value.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Tests whether paired values differ on average.

    Attributes:
        n: number of pairs.
        difference: mean of second minus first.
        sd: standard deviation of the differences (with n − 1).
        low, high: confidence interval of the mean difference by Student's t distribution.
        t: Student's t of the differences, with n − 1 degrees of freedom; NaN if all differences are equal.
        p_t: its two-sided probability; NaN if all differences are equal.
        p_wilcoxon: two-sided probability by Wilcoxon's signed-rank test; NaN if all differences are zero.
        smallest_p_wilcoxon: the smallest probability that this test can give with n pairs, 2^(1 − n).
    """

    n: int
    difference: float
    sd: float
    low: float
    high: float
    t: float
    p_t: float
    p_wilcoxon: float
    smallest_p_wilcoxon: float


@dataclass(frozen=True, eq=False)
class BlandAltman:
    """Agreement of two methods that measured the same things.

    Attributes:
        means: mean of both values of each pair (the horizontal axis of the plot).
        differences: second minus first (the vertical axis).
        bias: mean difference.
        sd: standard deviation of the differences (with n − 1).
        low, high: limits of agreement, bias ± z sd: between them lies the given part of normal differences.
        bias_low, bias_high: confidence interval of the bias.
        limit_error: half width of the confidence interval of either limit.
    """

    means: Float[ndarray, "pairs"]
    differences: Float[ndarray, "pairs"]
    bias: float
    sd: float
    low: float
    high: float
    bias_low: float
    bias_high: float
    limit_error: float

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.means)


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> MeanInterval:
    """Mean of independent values, for example of runs of several seeds, with its confidence interval.

    Args:
        values: the values, one-dimensional.
        confidence: probability of the interval.

    Returns:
        Mean, standard deviation and interval; scatter and interval of a single value are NaN.

    Raises:
        RequestError: no value, or one that is not a finite number.
        ConfigError: a confidence that is not between 0 and 1.
    """
    x = _vector(values, "values")
    _check_confidence(confidence)
    mean = float(x.mean())
    if len(x) < 2:
        return MeanInterval(1, mean, math.nan, math.nan, math.nan)
    sd = float(x.std(ddof=1))
    half = _t_quantile(confidence, len(x) - 1) * sd / math.sqrt(len(x))
    return MeanInterval(len(x), mean, sd, mean - half, mean + half)


def paired_test(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> PairedTest:
    """Test whether the second of two potentials has other errors than the first, from pairs (seeds, molecules).

    Args:
        first: a value of the first potential for each pair.
        second: a value of the second potential for each pair, in the same order.
        confidence: probability of the interval of the mean difference.

    Returns:
        Mean difference and interval, and the two-sided probabilities of both tests that pairs without any difference on
        average would differ at least as much: Student's t test (normal differences) and Wilcoxon's signed-rank test
        (symmetric differences; exact for up to 50 pairs without ties).

    Raises:
        RequestError: fewer than three pairs, different numbers of values, or values that are not finite.
        ConfigError: a confidence that is not between 0 and 1.
    """
    a, b = _pairs(first, second)
    if len(a) < MIN_PAIRS:
        raise RequestError(f"{len(a)} pairs: a paired test needs {MIN_PAIRS} or more; train more seeds")
    _check_confidence(confidence)
    from scipy import stats  # here, because the import takes half a second

    differences = b - a
    summary = mean_interval(differences, confidence=confidence)
    scale = float(np.abs(np.concatenate([a, b])).max())
    t = p_t = p_wilcoxon = math.nan
    if summary.sd > _EXACT * scale:
        result = stats.ttest_rel(b, a)
        t, p_t = float(result.statistic), float(result.pvalue)
    if np.abs(differences).max() > _EXACT * scale:
        p_wilcoxon = float(stats.wilcoxon(differences).pvalue)
    return PairedTest(
        len(a),
        summary.mean,
        summary.sd,
        summary.low,
        summary.high,
        t,
        p_t,
        p_wilcoxon,
        smallest_wilcoxon_p(len(a)),
    )


def smallest_wilcoxon_p(n: int) -> float:
    """The smallest two-sided probability that Wilcoxon's signed-rank test can give.

    Args:
        n: number of pairs.

    Returns:
        2^(1 − n), the probability that all differences have the same sign: 0.0625 for five pairs.
    """
    return min(1.0, 2.0 ** (1 - n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the probabilities of several tests so that false findings among all of them stay rare (Holm, Scand. J.
    Statist. 6, 65, 1979). No assumption about dependence of the tests is made.

    Args:
        p_values: two-sided probabilities; NaN for tests that could not be made, which do not count.

    Returns:
        Adjusted probabilities in the same order: the smallest level at which each test is significant if all tests
        together may be wrong with the probability of that level.

    Raises:
        RequestError: a probability outside 0 to 1.
    """
    p = np.asarray(p_values, dtype=float).reshape(-1)
    known = np.flatnonzero(~np.isnan(p))
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise RequestError("holm: expected probabilities from 0 to 1")
    adjusted = np.full(len(p), math.nan)
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return [float(value) for value in adjusted]


def bland_altman(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> BlandAltman:
    """Agreement of two methods, as means and differences of pairs (Bland and Altman, Stat. Methods Med. Res. 8, 135,
    1999).

    Args:
        first: a value of the first method for each pair.
        second: a value of the second method for each pair, in the same order.
        confidence: part of the differences between the limits of agreement, and probability of the intervals.

    Returns:
        Means and differences of all pairs, bias, and limits of agreement with their uncertainty.

    Raises:
        RequestError: fewer than three pairs, different numbers of values, or values that are not finite.
        ConfigError: a confidence that is not between 0 and 1.
    """
    a, b = _pairs(first, second)
    n = len(a)
    if n < MIN_PAIRS:
        raise RequestError(f"{n} pairs: limits of agreement need {MIN_PAIRS} or more")
    summary = mean_interval(b - a, confidence=confidence)
    from scipy import stats

    z = float(stats.norm.ppf(0.5 + confidence / 2))
    limit_sd = summary.sd * math.sqrt(1 / n + z**2 / (2 * (n - 1)))
    return BlandAltman(
        means=(a + b) / 2,
        differences=b - a,
        bias=summary.mean,
        sd=summary.sd,
        low=summary.mean - z * summary.sd,
        high=summary.mean + z * summary.sd,
        bias_low=summary.low,
        bias_high=summary.high,
        limit_error=_t_quantile(confidence, n - 1) * limit_sd,
    )


def bootstrap_rms_change(
    before: Float[ndarray, "groups"],
    after: Float[ndarray, "groups"],
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the change of a root-mean-square error when whole groups (molecules, reactions) are drawn with
    replacement, the same for both potentials (percentiles of the bootstrap distribution).

    Args:
        before: sum of squared errors of each group by the first potential.
        after: the same by the second potential; the groups have the same numbers of values.
        confidence: probability of the interval.
        n_resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Lower and upper end of the change in percent; NaN for fewer than two groups.

    Raises:
        RequestError: different numbers of groups, or sums that are not finite.
        ConfigError: a confidence that is not between 0 and 1.
    """
    old, new = _pairs(before, after)
    _check_confidence(confidence)
    if len(old) < 2:
        return math.nan, math.nan
    from scipy.stats import bootstrap

    # The distribution of the two sums, not of their ratio: a resample without errors of the first potential has none.
    sums_before, sums_after = bootstrap(
        [old, new],
        lambda old, new, axis: np.stack([old.sum(axis), new.sum(axis)]),
        paired=True,
        n_resamples=n_resamples,
        batch=max(1, 2_000_000 // len(old)),  # bounds the memory
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    ratios = sums_after[sums_before > 0.0] / sums_before[sums_before > 0.0]
    if not len(ratios):
        return math.nan, math.nan
    low, high = np.quantile(100.0 * (np.sqrt(ratios) - 1.0), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _vector(values: ArrayLike, name: str) -> Float[ndarray, "values"]:
    try:
        x = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise RequestError(f"{name}: expected a list of numbers, got {values!r}") from None
    if x.ndim != 1 or not len(x):
        raise RequestError(f"{name}: expected a list of one or more numbers, got an array of shape {x.shape}")
    if not np.isfinite(x).all():
        raise RequestError(f"{name}: number {int(np.flatnonzero(~np.isfinite(x))[0])} is not finite")
    return x


def _pairs(first: ArrayLike, second: ArrayLike) -> tuple[Float[ndarray, "pairs"], Float[ndarray, "pairs"]]:
    a, b = _vector(first, "first"), _vector(second, "second")
    if len(a) != len(b):
        raise RequestError(f"pairs: expected as many second values as first ones, got {len(a)} and {len(b)}")
    return a, b


def _check_confidence(confidence: float) -> None:
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise ConfigError(f"confidence: expected a number between 0 and 1, for example 0.95, got {confidence!r}")


def _t_quantile(confidence: float, degrees: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, degrees))
