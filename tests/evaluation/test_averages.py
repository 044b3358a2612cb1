"""Averages over structures and their confidence intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from hesse.errors import ConfigError
from hesse.evaluation.averages import (
    Average,
    average_row,
    grouped_fraction_interval,
    grouped_mean_interval,
    independent_groups,
    tag_masks,
)
from oracles import molecules


def average(values: list[float], **options: bool) -> Average:
    array = np.array(values)
    return Average("barrier", "mae", "eV", array, np.ones(len(array)), np.ones(len(array), dtype=np.int64), **options)


def everything(n: int) -> np.ndarray:
    return np.ones(n, dtype=bool)


def test_a_mean_and_a_root_mean_square_count_their_values() -> None:
    one, two = np.array([6.0, 0.0, 2.0]), np.array([3.0, 0.0, 1.0])
    counts = np.array([3, 0, 1])
    row = average_row(Average("zpe", "mae", "eV", one, two, counts), "set", "", everything(3))
    assert row is not None
    assert (row.value, row.n, row.ci_low, row.groups) == (2.0, 4, None, None)
    row = average_row(
        Average("zpe", "rmse", "eV", one, two, counts, root=True), "set", "a", everything(3), np.arange(3)
    )
    assert row is not None
    assert row.value == pytest.approx(np.sqrt(2.0))
    assert row.groups == 2
    assert average_row(average([1.0, 2.0]), "set", "", np.zeros(2, dtype=bool)) is None


def test_the_interval_of_a_mean_covers_the_truth() -> None:
    """Squared errors of 60 molecules with 3 structures each that are almost alike: an interval that took them for 180
    independent ones would be too narrow by √3."""
    rng = np.random.default_rng(5)
    covered = naive = 0
    for seed in range(150):
        values = np.repeat(rng.exponential(size=60), 3) + 0.01 * rng.normal(size=180)
        groups = np.repeat(np.arange(60), 3)
        low, high = grouped_mean_interval(values, np.ones(180), groups, n_resamples=300, confidence=0.9, seed=seed)
        covered += low <= 1.0 <= high
        low, high = grouped_mean_interval(values, np.ones(180), np.arange(180), n_resamples=300, confidence=0.9)
        naive += low <= 1.0 <= high
    assert 0.83 <= covered / 150 <= 0.96
    assert naive / 150 < 0.78


@pytest.mark.parametrize("n", [2, 5])
def test_the_interval_of_few_groups_covers_the_truth(n: int) -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(300):
        values = rng.exponential(size=n)
        low, high = grouped_mean_interval(values, np.ones(n), np.arange(n))
        covered += low <= 1.0 <= high
        assert low >= 0.0
    assert 0.84 <= covered / 300 <= 0.98


def test_the_interval_of_few_groups_is_that_of_student() -> None:
    values = np.array([0.3, -0.2, 0.5, 0.9])
    low, high = grouped_mean_interval(values, np.ones(4), np.arange(4))
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    # Different weights do not matter where every group has the same mean.
    weights = np.array([1.0, 5.0, 2.0])
    assert grouped_mean_interval(2.0 * weights, weights, np.arange(3)) == pytest.approx((2.0, 2.0))


def test_an_overlap_is_not_above_one() -> None:
    overlaps = np.array([1.0, 0.7, 0.99])
    ones = np.ones(3)
    average = Average("mode_1", "abs_cos", "1", overlaps, ones, ones.astype(int), at_most=1.0)
    row = average_row(average, "set", "", everything(3), np.arange(3))
    assert row is not None
    assert row.ci_high == 1.0
    assert 0.0 <= row.ci_low < 0.7


def test_a_weighted_mean_is_resampled_as_a_ratio() -> None:
    """A slope: totals are proportional to weights, so that every resample has the same ratio."""
    weights = np.array([1.0, 10.0, 0.1, 3.0])
    low, high = grouped_mean_interval(0.9 * weights, weights, np.arange(4))
    assert (low, high) == pytest.approx((0.9, 0.9))


def test_many_groups_are_joined_to_blocks_without_a_narrower_interval() -> None:
    values = np.random.default_rng(1).normal(size=20_000)
    low, high = grouped_mean_interval(values, np.ones(20_000), np.arange(20_000))
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(20_000), rel=0.15)


def test_a_single_group_has_no_interval() -> None:
    assert grouped_mean_interval(np.ones(3), np.ones(3), np.zeros(3, dtype=int)) is None
    assert grouped_fraction_interval(np.ones(3), np.ones(3), np.zeros(3, dtype=int)) is None
    row = average_row(average([1.0, 1.0]), "set", "", everything(2), np.zeros(2, dtype=int))
    assert row is not None
    assert (row.ci_low, row.groups) == (None, 1)


@pytest.mark.parametrize("successes", [0, 3, 8])
def test_the_interval_of_a_fraction_is_the_exact_binomial_one(successes: int) -> None:
    values = np.array([1.0] * successes + [0.0] * (8 - successes))
    low, high = grouped_fraction_interval(values, np.ones(8), np.arange(8))
    expected = binomtest(successes, 8).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_structures_that_share_their_fate_count_once() -> None:
    """All 20 structures of 4 reactions are right: that is 4 of 4, not 20 of 20."""
    low, high = grouped_fraction_interval(np.ones(20), np.ones(20), np.repeat(np.arange(4), 5))
    assert (low, high) == pytest.approx((binomtest(4, 4).proportion_ci(method="exact").low, 1.0))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    for function in (grouped_mean_interval, grouped_fraction_interval):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            function(np.ones(3), np.ones(3), np.arange(3), confidence=confidence)


def test_groups_and_tags_of_structures() -> None:
    a, b, c, d = molecules([3, 3, 3, 3])
    structures = [replace(a, group="x", tag="ts"), replace(b, group="x"), replace(c, id="x"), replace(d, tag="ts")]
    groups = independent_groups(structures)
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 3  # an id that is equal to the name of a group is not that group
    masks = tag_masks(structures)
    assert {tag: mask.tolist() for tag, mask in masks.items()} == {"": [True] * 4, "ts": [True, False, False, True]}
    assert list(tag_masks(structures, by_tag=False)) == [""]
