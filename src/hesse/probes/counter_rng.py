"""Random numbers that belong to a structure.

A number is a function of (seed, epoch, structure id, probe index, coordinate) and of nothing else: no generator is
advanced, so the composition of batches, an interruption, or the number of processes cannot change it. The function is
SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), evaluated for all coordinates at once on the tensors' own device.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["probe_states", "random_bits", "to_normal", "to_uniform"]


def _as_int64(value: int) -> int:
    """The 64-bit pattern `value` as torch's signed integer; products wrap around alike."""
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
    """One independent state per structure and probe index."""
    state = keys[None].expand(n_probes, -1)
    probe = torch.arange(n_probes, device=keys.device)[:, None]
    for word in (seed, epoch):
        state = _mix(state + _as_int64((word + 1) * 0x9E3779B97F4A7C15 % (1 << 64)))
    return _mix(state + (probe + 1) * _GOLDEN)


def random_bits(
    states: Int[Tensor, "probes items"], counters: Int[Tensor, "items *rest"]
) -> Int[Tensor, "probes items *rest"]:
    """64 random bits per counter of each item's stream. `states` is per item (atom or structure)."""
    states = states.reshape(*states.shape, *([1] * (counters.dim() - 1)))
    return _mix(states + (counters + 1) * _GOLDEN)


def to_uniform(bits: Int[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Uniform in [0, 1), float64, from the upper 53 bits."""
    return _logical_shift(bits, 11).to(torch.float64) * 2.0**-53


def to_normal(first: Int[Tensor, "*any"], second: Int[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Standard normal, float64, by the Box-Muller transform of two words."""
    radius = torch.sqrt(-2.0 * torch.log1p(-to_uniform(first)))
    return radius * torch.cos(2.0 * math.pi * to_uniform(second))
