"""Counter-based random numbers: against SplitMix64 in Python integers, and statistical tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hesse.probes.counter_rng import probe_states, random_bits, to_normal, to_uniform

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
words = st.integers(0, (1 << 63) - 1)


def mixed(x: int) -> int:
    """The finalizer of SplitMix64, on unsigned integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def splitmix64(seed: int, count: int) -> list[int]:
    """The generator as published: add the golden gamma, then mix."""
    numbers, state = [], seed
    for _ in range(count):
        state = (state + GOLDEN) & WORD
        numbers.append(mixed(state))
    return numbers


def unsigned(tensor: torch.Tensor) -> list[int]:
    return [int(x) & WORD for x in tensor.reshape(-1).tolist()]


def test_the_reference_gives_the_published_numbers() -> None:
    # First outputs of Vigna's splitmix64.c for the seeds 0 and 1234567.
    assert splitmix64(0, 3) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(state=st.integers(-(1 << 63), (1 << 63) - 1))
def test_coordinates_follow_splitmix64(state: int) -> None:
    bits = random_bits(torch.tensor([[state]]), torch.arange(20)[None])
    assert unsigned(bits) == splitmix64(state & WORD, 20)


@given(keys=st.lists(words, min_size=1, max_size=4), seed=words, epoch=words)
def test_states_are_the_documented_function_of_seed_epoch_id_and_probe(keys: list[int], seed: int, epoch: int) -> None:
    states = probe_states(torch.tensor(keys), seed=seed, epoch=epoch, n_probes=3)
    for column, key in enumerate(keys):
        state = key
        for word in (seed, epoch):
            state = mixed((state + (word + 1) * GOLDEN) & WORD)
        expected = [mixed((state + (k + 1) * GOLDEN) & WORD) for k in range(3)]
        assert unsigned(states[:, column]) == expected


def test_uniform_is_the_upper_53_bits() -> None:
    bits = torch.tensor([0, -1, 1 << 62, -(1 << 63), (1 << 11) - 1, 1 << 11])
    assert to_uniform(bits).tolist() == [0.0, 1 - 2.0**-53, 0.25, 0.5, 0.0, 2.0**-53]


def test_normal_is_finite_at_the_extremes_and_standard_in_distribution() -> None:
    extreme = torch.tensor([0, -1, 1 << 62, -(1 << 63)])
    first, second = torch.meshgrid(extreme, extreme, indexing="ij")
    values = to_normal(first, second)
    assert torch.isfinite(values).all()
    assert float(values.abs().max()) == pytest.approx(math.sqrt(2 * 53 * math.log(2)))
    states = probe_states(torch.tensor([12345]), seed=0, epoch=0, n_probes=1)
    counters = torch.arange(40_000)[None]
    sample = to_normal(random_bits(states, 2 * counters), random_bits(states, 2 * counters + 1)).numpy().ravel()
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 4.5 / math.sqrt(len(sample))


def test_every_bit_is_fair_and_streams_do_not_repeat_each_other() -> None:
    states = probe_states(torch.arange(50), seed=3, epoch=2, n_probes=4)
    bits = random_bits(states, torch.arange(100).expand(50, 100))
    numbers = np.array(unsigned(bits), dtype=np.uint64)
    assert len(set(numbers.tolist())) == len(numbers)
    ones = np.array([((numbers >> np.uint64(b)) & np.uint64(1)).mean() for b in range(64)])
    assert np.abs(ones - 0.5).max() < 4.5 * 0.5 / math.sqrt(len(numbers))


def test_seed_epoch_and_probe_are_not_interchangeable() -> None:
    seen = set()
    for seed in range(6):
        for epoch in range(6):
            seen.update(unsigned(probe_states(torch.tensor([0, 1, 2]), seed=seed, epoch=epoch, n_probes=6)))
    assert len(seen) == 6 * 6 * 3 * 6
