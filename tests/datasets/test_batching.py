"""Shuffled batches: every structure once, all orders equally likely, similar sizes together on request."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hesse.datasets import pack_batches, shuffled_batches

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=60)
WINDOWS = st.sampled_from([None, 2, 3, 8])


def epoch(
    sizes: NDArray[np.int64], seed: int, window: int | None, *, structures: int = 4, atoms: int = 10**6
) -> list[NDArray[np.int64]]:
    generator = torch.Generator().manual_seed(seed)
    return shuffled_batches(
        sizes, np.arange(len(sizes)), generator, max_atoms=atoms, max_structures=structures, window=window
    )


@given(SIZES, st.integers(0, 1000), WINDOWS, st.integers(1, 7), st.integers(1, 80))
def test_every_structure_once_within_the_limits(
    sizes: list[int], seed: int, window: int | None, structures: int, atoms: int
) -> None:
    n = np.array(sizes)
    runs = epoch(n, seed, window, structures=structures, atoms=atoms)
    assert sorted(np.concatenate(runs).tolist()) == list(range(len(n)))
    assert all(len(run) <= structures for run in runs)
    assert all(n[run].sum() <= atoms or len(run) == 1 for run in runs)
    again = epoch(n, seed, window, structures=structures, atoms=atoms)
    assert all(np.array_equal(a, b) for a, b in zip(runs, again, strict=True))


@given(SIZES, st.integers(0, 1000), WINDOWS)
def test_at_most_one_batch_is_short(sizes: list[int], seed: int, window: int | None) -> None:
    runs = epoch(np.array(sizes), seed, window)
    assert sorted(len(run) for run in runs)[1:] == [4] * (len(runs) - 1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 20))
def test_batches_are_as_large_as_possible(sizes: list[int], most: int) -> None:
    n = np.array(sizes)
    runs = pack_batches(n, np.arange(len(n)), most)
    for one, other in itertools.pairwise(runs):
        assert n[one].sum() + n[other[0]] > most


def test_batches_of_similar_sizes() -> None:
    n = np.random.default_rng(0).integers(3, 40, size=480)
    spread = {w: np.mean([np.ptp(n[run]) for run in epoch(n, 1, w)]) for w in (None, 4, 20)}
    assert spread[20] < spread[4] < 0.5 * spread[None]


EPOCHS = 4000
KINDS = np.repeat([3, 5, 8, 13], 6)
"""Six structures of each of four sizes, in batches of four: two epochs in windows of three batches."""


def assert_uniform(counts: NDArray[np.float64], expected: float) -> None:
    """No frequency is off by more than five standard deviations of as many independent draws. For 4000 epochs and
    frequencies of 3/23 and more these are 20 %: one that is off by 30 % would be found with 98 % certainty."""
    deviation = math.sqrt(EPOCHS * (p := expected / EPOCHS) * (1 - p))
    assert np.abs(counts - expected).max() < 5 * deviation, (counts, expected)


@pytest.fixture(scope="module", params=[None, 3])
def many(request: pytest.FixtureRequest) -> tuple[int | None, list[list[NDArray[np.int64]]]]:
    return request.param, [epoch(KINDS, seed, request.param) for seed in range(EPOCHS)]


def test_every_structure_is_equally_likely_in_every_position(
    many: tuple[int | None, list[list[NDArray[np.int64]]]],
) -> None:
    for position in (0, -1):
        first = np.bincount(np.concatenate([runs[position] for runs in many[1]]), minlength=24)
        assert_uniform(first.astype(float), EPOCHS * 4 / 24)


def test_which_structures_share_a_batch(many: tuple[int | None, list[list[NDArray[np.int64]]]]) -> None:
    """Without windows all pairs are equally likely; with windows those of equal or adjacent sizes."""
    window, epochs = many
    together = np.zeros((24, 24))
    for run in itertools.chain.from_iterable(epochs):
        together[run[:, None], run] += 1
    np.fill_diagonal(together, np.nan)
    if window is None:
        assert_uniform(together[~np.isnan(together)], EPOCHS * 3 / 23)
        return
    for row, column in itertools.product(range(4), repeat=2):
        block = together[6 * row : 6 * row + 6, 6 * column : 6 * column + 6]
        values = block[~np.isnan(block)]
        if abs(row - column) <= 1:
            assert values.min() > 0.02 * EPOCHS
            assert_uniform(values, float(values.mean()))


@pytest.mark.parametrize("window", [None, 3])
def test_mean_over_batches_is_the_mean_over_structures(window: int | None) -> None:
    """Whatever a structure contributes (here its size, which is what windows sort by), the mean over the batches of an
    epoch is the mean over the structures: exactly when all batches are full, on average when one is not."""
    for seed in range(20):
        means = [KINDS[run].mean() for run in epoch(KINDS, seed, window)]
        assert np.mean(means) == pytest.approx(KINDS.mean(), rel=1e-12)
    odd = np.random.default_rng(1).integers(3, 14, size=31)
    values = [np.mean([odd[run].mean() for run in epoch(odd, seed, window)]) for seed in range(EPOCHS)]
    error = np.std(values) / math.sqrt(EPOCHS)
    assert abs(np.mean(values) - odd.mean()) < 5 * error
    assert error < 0.003 * odd.std()
