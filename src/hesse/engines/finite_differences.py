"""Directional derivatives of a gradient by central differences: the step, and an estimate of the error.

With `g(s)` the gradient at `x + s v` and the step e, the plain difference `D(e) = [g(e) − g(−e)]/2e` is off by
`e² g‴/6`; Richardson's combination of the steps e and 2e, `[4 D(e) − D(2e)]/3`, by `−e⁴ g⁗′/30`.

Three things limit a label, and each shows itself somewhere else:

* truncation. Derivatives grow from order to order by a common factor, which predicts the first neglected one.
  `|D(e) − D(2e)|/3` would be the error of the plain difference, far above that of Richardson's.
* noise (an iteration stopped, rounding). Two gradients cannot show it. The fourth difference of the five gradients
  that Richardson's combination uses anyway, `g(2e) − 4g(e) + 6g(0) − 4g(−e) + g(−2e)`, has lost all smooth terms up to
  the cubic: noise of standard deviation δ leaves √70 δ in it (difference tables for noise: Moré and Wild, SIAM J. Sci.
  Comput. 33, 1292 (2011)). In the plain difference that noise is δ/(√2 e), in Richardson's 0.95 δ/e.
* a smooth bias of the gradient (a coarse grid, self-consistency not fully reached). No choice of step shows it. It
  breaks the rotational identity, which the caller checks; and what a grid does shows in the part of the gradient that
  a perfect grid would not have (`Point.grid_forces`): its slope is about as large as the error of the whole.

Steps are picked so that noise stays a fifth of the truncation expected: about twice the error of the best step, and
an error that the label's own gradients show instead of one that they hide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.geometry import find_mic
from jaxtyping import Float

from hesse.structures import Structure

__all__ = [
    "DirectionalDerivative",
    "central_difference",
    "choose_step",
    "estimate_gradient_noise",
    "relative_motion",
    "richardson",
]

_DECAY_LENGTH = 0.5
"""Å; neighbors farther than an atom's nearest by this much count 1/e."""


def relative_motion(structure: Structure, direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    """Root mean square, over the neighbors of each atom, of the change of their relative position along `direction`:
    of the distance, and of the angle times 1 Å. Å per unit of the direction. Zero where nothing moves against
    anything, as in a shift of the whole, and for an atom alone. Crystals: nearest images.
    """
    n = len(structure)
    vectors = structure.positions[:, None] - structure.positions[None]
    distances = np.linalg.norm(vectors, axis=2)
    if structure.periodic:
        flat, lengths = find_mic(vectors.reshape(-1, 3), structure.cell, structure.pbc)
        vectors, distances = flat.reshape(n, n, 3), lengths.reshape(n, n)
    others = ~np.eye(n, dtype=bool)
    if n == 1:
        return np.zeros(1)
    distances = np.where(others, distances, np.inf)
    nearest = distances.min(1, keepdims=True)
    weights = np.exp(-(distances - nearest) / _DECAY_LENGTH)
    relative = direction[:, None] - direction[None]
    stretch = (vectors * relative).sum(2) / distances
    rotation = np.maximum((relative**2).sum(2) - stretch**2, 0.0) / distances**2
    return np.sqrt((weights * (stretch**2 + rotation)).sum(1) / weights.sum(1))


Gradient = Callable[[float], Float[np.ndarray, "n 3"]]

_SMOOTH_MARGIN = 4.0
"""A fourth difference up to this multiple of its prediction counts as smooth: ratios differ from order to order."""

_MAX_RATIO = 0.5
"""Differences that fall by less than this from order to order are no smooth series: noise, or a kink."""

_DERIVATIVE_RATIO = 5.0
"""1/Å; growth of the derivatives of a gradient, per Å that neighbors move: `g‴/(g″ × rate)`, root mean square over a
molecule. These constants are medians over jittered molecules of the G2 set at GFN2-xTB, and
benchmarks/truncation_constants.py measures them: 5.0 for Rademacher, 5.3 for Gaussian, 5.4 for one-hot directions; 100,
99 and 97 % lie within a factor of 3 of 5."""

_FOURTH_DERIVATIVE_RATIO = 7.0
"""1/Å; the same from the fourth to the fifth derivative: 6.9, 7.2 and 7.4; 99, 99 and 98 % within a factor of 3."""

_SECOND_ORDER_ERROR = 800.0
"""eV/Å⁴; error of the plain difference over the square of its step, Rademacher directions (5 % below 30, 5 % above
2200)."""

_FOURTH_ORDER_ERROR = 4e4
"""eV/Å⁶; error of Richardson's combination over the fourth power of its step (5 % below 600, 5 % above 1.5e5)."""

_NOISE_FRACTION = 0.2
"""Noise that a picked step allows, as a share of the truncation expected there."""

_MAX_STEP = 0.02
"""Å; a step is never picked larger: outer points lie at twice that."""

_MIN_STEP = 1e-5
"""Å; a step is never picked smaller, however exact the gradients: second differences must not drown in rounding."""


@dataclass(frozen=True, eq=False)
class DirectionalDerivative:
    """`H v`, with root-mean-square estimates per component of its errors (eV/Å² per unit of v).

    Attributes:
        noise: None where the gradients used cannot show it.
        truncation: of the series that differences cut off.
        grid: of an integration grid; zero without one.
    """

    value: Float[np.ndarray, "n 3"]
    noise: float | None
    truncation: float
    grid: float = 0.0


def choose_step(noise: float, fourth_order: bool) -> float:
    """The step (Å, largest displacement of a coordinate) for gradients of this `noise` (eV/Å per component)."""
    if fourth_order:
        step = (0.95 * noise / (_NOISE_FRACTION * _FOURTH_ORDER_ERROR)) ** (1 / 5)
    else:
        step = (noise / (np.sqrt(2.0) * _NOISE_FRACTION * _SECOND_ORDER_ERROR)) ** (1 / 3)
    # Two digits: a number that people can repeat.
    return float(f"{min(max(step, _MIN_STEP), _MAX_STEP):.1e}")


def central_difference(
    gradient: Gradient, origin: Float[np.ndarray, "n 3"], epsilon: float, relative_rates: Float[np.ndarray, "n"]
) -> DirectionalDerivative:
    """The second-order difference from `gradient(±epsilon)`; `origin` is `gradient(0)`.

    Args:
        rates: how fast the surroundings of each atom change along the direction (`relative_motion`, Å per unit of it).

    The error is `e² g‴/6`. Two gradients and the origin give g″; forces between atoms fall off so that each further
    derivative is larger by about the same factor per Å (in a Morse potential of width a, `g‴/g″ = −7a/3`, and a is near
    2/Å for most bonds), times the rate at which the atoms approach each other.
    """
    plus, minus = gradient(epsilon), gradient(-epsilon)
    second = (plus + minus - 2.0 * origin) / epsilon**2
    truncation = epsilon**2 / 6.0 * _DERIVATIVE_RATIO * _rms(second * relative_rates[:, None])
    return DirectionalDerivative((plus - minus) / (2.0 * epsilon), None, truncation)


def richardson(
    gradient: Gradient, origin: Float[np.ndarray, "n 3"], epsilon: float, relative_rates: Float[np.ndarray, "n"]
) -> DirectionalDerivative:
    """The fourth-order difference from `gradient(±epsilon)` and `gradient(±2 epsilon)`; the rest as for
    `central_difference`. The error is `e⁴ g⁗′/30`, with the fifth derivative from the fourth."""
    plus, minus = gradient(epsilon), gradient(-epsilon)
    plus2, minus2 = gradient(2.0 * epsilon), gradient(-2.0 * epsilon)
    value = (8.0 * (plus - minus) - (plus2 - minus2)) / (12.0 * epsilon)
    # The k-th difference of step e stands for e^k times the k-th derivative along v.
    first = _rms(0.5 * (plus - minus))
    second = _rms(plus + minus - 2.0 * origin)
    third = _rms(0.5 * (plus2 - minus2) - (plus - minus))
    fourths = plus2 + minus2 - 4.0 * (plus + minus) + 6.0 * origin
    fourth = _rms(fourths)
    ratio = max(_ratio(second, first), _ratio(third, second))
    smooth = _SMOOTH_MARGIN * third * ratio if ratio < _MAX_RATIO else 0.0
    noise = np.sqrt(max(fourth**2 - smooth**2, 0.0) / 70.0)
    # Noise is in the fourth difference too, and small here: a step is a small part of an Ångström.
    truncation = _FOURTH_DERIVATIVE_RATIO * _rms(fourths * relative_rates[:, None]) / 30.0
    # 130 = 8² + 8² + 1² + 1²: the squared weights of Richardson's combination, over 12.
    return DirectionalDerivative(value, float(np.sqrt(130.0) / 12.0 * noise / epsilon), truncation)


def estimate_gradient_noise(gradients: Float[np.ndarray, "points n 3"]) -> float:
    """Noise (eV/Å per component) of gradients at equally spaced points of a line, from their fourth differences.

    Choose the points close enough (0.0001 Å and less) that the smooth part vanishes; five are the least, nine serve
    well. Moré and Wild, SIAM J. Sci. Comput. 33, 1292 (2011).

    Raises:
        ValueError: fewer than five points.
    """
    if len(gradients) < 5:
        raise ValueError(f"a fourth difference needs at least 5 points, got {len(gradients)}")
    return _rms(np.diff(gradients, n=4, axis=0)) / float(np.sqrt(70.0))


def _rms(values: Float[np.ndarray, "..."]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _ratio(later: float, earlier: float) -> float:
    """By how much a difference falls from one order to a later one; never more than one on a step that makes sense."""
    return min(later / earlier, 1.0) if earlier > 0.0 else 0.0


# MERGED DOCSTRING (fold into the module docstring): """How fast the surroundings of each atom change along a direction: the scale on which forces stop being linear."""
