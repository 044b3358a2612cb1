"""Counter-based random numbers for probes.

A random number is a function of (seed, epoch, structure id, probe index, coordinate) only. There is no generator with a
state, so the composition of batches, interruptions and the number of processes do not change the numbers. The function
is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), evaluated for all coordinates at once on the device of the tensors.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["probe_states", "random_bits", "to_normal", "to_uniform"]


def _as_int64(value: int) -> int:
    """The signed integer with the same 64 bits. Products of signed and unsigned integers have the same lower 64
    bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _as_int64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _as_int64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _as_int64(0x94D049BB133111EB)


def _logical_shift(x: Int[Tensor, "*any"], bits: int) -> Int[Tensor, "*any"]:
    # torch shifts signed integers arithmetically; the mask makes it a logical shift.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    x = (x ^ _logical_shift(x, 30)) * _MULTIPLIER_1
    x = (x ^ _logical_shift(x, 27)) * _MULTIPLIER_2
    return x ^ _logical_shift(x, 31)


def probe_states(
    keys: Int[Tensor, "structures"], *, seed: int, epoch: int, n_probes: int
) -> Int[Tensor, "probes structures"]:
    """Random state of each structure and probe.

    Args:
        keys: key of each structure, see `hesse.structures.rng_key`.
        seed: seed of the run.
        epoch: number of the epoch or step; another number gives independent states.
        n_probes: number of probes per structure.

    Returns:
        States, `[probes, structures]`.
    """
    state = keys[None].expand(n_probes, -1)
    probe = torch.arange(n_probes, device=keys.device)[:, None]
    for word in (seed, epoch):
        state = _mix(state + _as_int64((word + 1) * 0x9E3779B97F4A7C15 % (1 << 64)))
    return _mix(state + (probe + 1) * _GOLDEN)


def random_bits(
    states: Int[Tensor, "probes items"], counters: Int[Tensor, "items *rest"]
) -> Int[Tensor, "probes items *rest"]:
    """64 random bits for each counter.

    Args:
        states: random state of each item (atom or structure), `[probes, items]`.
        counters: numbers of the random values of each item, `[items, ...]`.

    Returns:
        64-bit integers, `[probes, items, ...]`.
    """
    states = states.reshape(*states.shape, *([1] * (counters.dim() - 1)))
    return _mix(states + (counters + 1) * _GOLDEN)


def to_uniform(bits: Int[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Convert random bits to uniform random numbers (from the upper 53 bits).

    Args:
        bits: 64-bit integers.

    Returns:
        Numbers in [0, 1), float64, of the same shape.
    """
    return _logical_shift(bits, 11).to(torch.float64) * 2.0**-53


def to_normal(first: Int[Tensor, "*any"], second: Int[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Convert random bits to standard normal random numbers, by the Box-Muller transform.

    Args:
        first: 64-bit integers.
        second: 64-bit integers of the same shape, independent of `first`.

    Returns:
        Normal numbers, float64, of the same shape.
    """
    radius = torch.sqrt(-2.0 * torch.log1p(-to_uniform(first)))
    return radius * torch.cos(2.0 * math.pi * to_uniform(second))
