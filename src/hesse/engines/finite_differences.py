"""Directional derivatives of a gradient by central differences: choice of the step, and an estimate of the error.

With `g(s)` the gradient at `x + s v` and the step e, the error of the plain difference `D(e) = [g(e) − g(−e)]/2e` is
`e² g‴/6`; that of Richardson's combination of the steps e and 2e, `[4 D(e) − D(2e)]/3`, is `−e⁴ g⁗′/30`.

Three errors limit a label, and each is estimated in its own way:

* truncation. Derivatives grow from order to order by a common factor, which predicts the first neglected one.
  `|D(e) − D(2e)|/3` would be the error of the plain difference, far above that of Richardson's combination. The growth
  depends on how fast the direction moves neighboring atoms against each other (`relative_motion`).
  In crystals the even derivatives of the gradient may vanish by symmetry (an atom at a center of inversion, a small
  ideal cell), and no rotational sum rule covers for them: there the odd derivatives count as well, and where the even
  ones vanish, two further gradients measure the truncation (`outer_points`).
* noise (unfinished iterations, rounding). Two gradients cannot show it. The fourth difference of the five gradients
  that Richardson's combination uses anyway, `g(2e) − 4g(e) + 6g(0) − 4g(−e) + g(−2e)`, has lost all smooth terms up to
  the cubic: noise of standard deviation δ leaves √70 δ in it (difference tables for noise: Moré and Wild, SIAM J. Sci.
  Comput. 33, 1292 (2011)). In the plain difference that noise is δ/(√2 e), in Richardson's 0.95 δ/e.
* a smooth bias of the gradient (a coarse grid, incomplete self-consistency). No choice of step shows it. It violates
  the rotational sum rule, which the caller checks. The error of a grid is also visible in the part of the gradient that
  a perfect grid would not have (`SinglePoint.grid_forces`): the derivative of that part is about as large as the error.

Steps are chosen so that noise stays a fifth of the expected truncation error. The total error is then about twice that
of the best step, but it is one that the gradients of the label itself reveal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.geometry import find_mic
from jaxtyping import Float

from hesse.structures import Structure

__all__ = [
    "DirectionalDerivative",
    "OuterPoints",
    "central_difference",
    "choose_step",
    "estimate_gradient_noise",
    "relative_motion",
    "richardson",
]

_DECAY_LENGTH = 0.5
"""Å; a neighbor that is farther away than the nearest one by this much has the weight 1/e."""


def relative_motion(structure: Structure, direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    """Rate at which the neighbors of each atom move relative to it along a direction.

    It sets the scale on which forces stop being linear. In crystals the nearest image of each neighbor counts.

    Args:
        structure: the structure.
        direction: the direction, `[n, 3]`.

    Returns:
        For each atom the weighted root mean square over its neighbors of the change of distance, and of the angle times
        1 Å; Å per unit of the direction, `[n]`. Zero for translations of the whole structure and for a single atom.
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


OuterPoints = Literal["never", "symmetry", "always"]
"""When two further gradients, at twice the largest displacement, measure the truncation: never; where the derivatives
that would reveal it vanish by symmetry; always."""

Gradient = Callable[[float], Float[np.ndarray, "n 3"]]

_SMOOTH_MARGIN = 4.0
"""A fourth difference up to this multiple of its prediction counts as smooth: ratios differ from order to order."""

_MAX_RATIO = 0.5
"""Differences that fall by less than this factor from order to order are not those of a smooth function: they are noise
or come from a kink."""

_DERIVATIVE_RATIO = 5.0
"""1/Å; growth of the derivatives of a gradient, per Å that neighbors move relative to each other: `g‴/(g″ × rate)`,
root mean square over a molecule. These constants are medians over jittered molecules of the G2 set at GFN2-xTB, and
benchmarks/truncation_constants.py measures them: 5.0 for Rademacher, 5.3 for Gaussian, 5.4 for one-hot directions; 100,
99 and 97 % lie within a factor of 3 of 5."""

_FOURTH_DERIVATIVE_RATIO = 7.0
"""1/Å; the same from the fourth to the fifth derivative: 6.9, 7.2 and 7.4; 99, 99 and 98 % within a factor of 3."""

_VANISHED = 0.1
"""Truncation predicted from even derivatives below this fraction of that from odd ones: symmetry removes the former."""

_SECOND_ORDER_ERROR = 800.0
"""eV/Å⁴; error of the plain difference over the square of its step, Rademacher directions (5 % below 30, 5 % above
2200)."""

_FOURTH_ORDER_ERROR = 4e4
"""eV/Å⁶; error of Richardson's combination over the fourth power of its step (5 % below 600, 5 % above 1.5e5)."""

_NOISE_FRACTION = 0.2
"""Noise at the chosen step, as a fraction of the truncation error expected there."""

_MAX_STEP = 0.02
"""Å; largest step that is chosen: outer points lie at twice that."""

_MIN_STEP = 1e-5
"""Å; smallest step that is chosen, however exact the gradients: second differences must stay above rounding errors."""


@dataclass(frozen=True, eq=False)
class DirectionalDerivative:
    """`H v` with estimates of its errors, root mean square per component (eV/Å² per unit of v).

    Attributes:
        value: `H v`, `[n, 3]`.
        noise: error from the noise of the gradients; None where the gradients used cannot reveal it.
        truncation: error from the neglected terms of the Taylor series.
        grid: error caused by an integration grid; zero without one.
        measured: the truncation where further gradients measured it; None elsewhere.
    """

    value: Float[np.ndarray, "n 3"]
    noise: float | None
    truncation: float
    grid: float = 0.0
    measured: float | None = None


def choose_step(noise: float, fourth_order: bool) -> float:
    """Choose the step of finite differences.

    Args:
        noise: noise of the gradients, eV/Å per component.
        fourth_order: whether the step is for Richardson's combination.

    Returns:
        Largest displacement of a coordinate, Å, rounded to two digits.
    """
    if fourth_order:
        step = (0.95 * noise / (_NOISE_FRACTION * _FOURTH_ORDER_ERROR)) ** (1 / 5)
    else:
        step = (noise / (np.sqrt(2.0) * _NOISE_FRACTION * _SECOND_ORDER_ERROR)) ** (1 / 3)
    # Two digits, so that people can reproduce a label with the same step.
    return float(f"{min(max(step, _MIN_STEP), _MAX_STEP):.1e}")


def central_difference(
    gradient: Gradient,
    origin: Float[np.ndarray, "n 3"],
    epsilon: float,
    relative_rates: Float[np.ndarray, "n"],
    outer_points: OuterPoints = "never",
) -> DirectionalDerivative:
    """The second-order difference, from `gradient(±epsilon)`.

    The error is `e² g‴/6`. The two gradients and the one at the origin give g″. Forces between atoms decay so that each
    further derivative is larger by about the same factor per Å (in a Morse potential of width a, `g‴/g″ = −7a/3`, and a
    is near 2/Å for most bonds), times the rate at which the atoms approach each other.

    Args:
        gradient: the gradient (eV/Å, `[n, 3]`) as a function of the displacement along the direction.
        origin: `gradient(0)`.
        epsilon: the displacement.
        relative_rates: how fast the neighbors of each atom move relative to it along the direction (`relative_motion`).
        outer_points: when `gradient(±2 epsilon)` measures the truncation too.

    Returns:
        The derivative with its estimated truncation error; its noise is unknown.
    """
    plus, minus = gradient(epsilon), gradient(-epsilon)
    second = (plus + minus - 2.0 * origin) / epsilon**2
    value = (plus - minus) / (2.0 * epsilon)
    scale = epsilon**2 / 6.0
    even = scale * _DERIVATIVE_RATIO * _rms(second * relative_rates[:, None])
    odd = scale * _DERIVATIVE_RATIO**2 * _rms(value * relative_rates[:, None] ** 2)
    if not _outer_points_needed(even, odd, outer_points):
        return DirectionalDerivative(value, None, even if outer_points == "never" else max(even, odd))
    wide = (gradient(2.0 * epsilon) - gradient(-2.0 * epsilon)) / (4.0 * epsilon)
    measured = _rms(wide - value) / 3.0
    return DirectionalDerivative(value, None, max(even, measured), measured=measured)


def _outer_points_needed(even: float, odd: float, outer_points: OuterPoints) -> bool:
    return outer_points == "always" or (outer_points == "symmetry" and even < _VANISHED * odd)


def richardson(
    gradient: Gradient,
    origin: Float[np.ndarray, "n 3"],
    epsilon: float,
    relative_rates: Float[np.ndarray, "n"],
    outer_points: OuterPoints = "never",
) -> DirectionalDerivative:
    """The fourth-order difference, from `gradient(±epsilon)` and `gradient(±2 epsilon)`.

    The error is `e⁴ g⁗′/30`; the fifth derivative is estimated from the fourth.

    Args:
        gradient: the gradient (eV/Å, `[n, 3]`) as a function of the displacement along the direction.
        origin: `gradient(0)`.
        epsilon: the displacement.
        relative_rates: how fast the neighbors of each atom move relative to it along the direction (`relative_motion`).
        outer_points: when `gradient(±4 epsilon)` measures the truncation too.

    Returns:
        The derivative with its estimated truncation error and noise.
    """
    plus, minus = gradient(epsilon), gradient(-epsilon)
    plus2, minus2 = gradient(2.0 * epsilon), gradient(-2.0 * epsilon)
    value = (8.0 * (plus - minus) - (plus2 - minus2)) / (12.0 * epsilon)
    # The k-th difference of step e approximates e^k times the k-th derivative along v.
    first = _rms(0.5 * (plus - minus))
    second = _rms(plus + minus - 2.0 * origin)
    thirds = 0.5 * (plus2 - minus2) - (plus - minus)
    third = _rms(thirds)
    fourths = plus2 + minus2 - 4.0 * (plus + minus) + 6.0 * origin
    fourth = _rms(fourths)
    ratio = max(_ratio(second, first), _ratio(third, second))
    smooth = _SMOOTH_MARGIN * third * ratio if ratio < _MAX_RATIO else 0.0
    noise = np.sqrt(max(fourth**2 - smooth**2, 0.0) / 70.0)
    # Noise is in the fourth difference too, and small here: a step is a small part of an Ångström.
    even = _FOURTH_DERIVATIVE_RATIO * _rms(fourths * relative_rates[:, None]) / 30.0
    odd = epsilon * _FOURTH_DERIVATIVE_RATIO**2 * _rms(thirds * relative_rates[:, None] ** 2) / 30.0
    # 130 = 8² + 8² + 1² + 1²: the squared weights of Richardson's combination, over 12.
    value_noise = float(np.sqrt(130.0) / 12.0 * noise / epsilon)
    if not _outer_points_needed(even, odd, outer_points):
        return DirectionalDerivative(value, value_noise, even if outer_points == "never" else max(even, odd))
    wide = (8.0 * (plus2 - minus2) - (gradient(4.0 * epsilon) - gradient(-4.0 * epsilon))) / (24.0 * epsilon)
    measured = _rms(wide - value) / 15.0
    return DirectionalDerivative(value, value_noise, max(even, measured), measured=measured)


def estimate_gradient_noise(gradients: Float[np.ndarray, "points n 3"]) -> float:
    """Noise of gradients at equally spaced points on a line, from their fourth differences.

    Moré and Wild, SIAM J. Sci. Comput. 33, 1292 (2011).

    Args:
        gradients: eV/Å, `[points, n, 3]`: at least five points, better nine, close enough (0.0001 Å or less) that the
            smooth part vanishes.

    Returns:
        The noise, eV/Å per component.

    Raises:
        ValueError: fewer than five points.
    """
    if len(gradients) < 5:
        raise ValueError(f"a fourth difference needs at least 5 points, got {len(gradients)}")
    return _rms(np.diff(gradients, n=4, axis=0)) / float(np.sqrt(70.0))


def _rms(values: Float[np.ndarray, "..."]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _ratio(later: float, earlier: float) -> float:
    """Ratio of a difference to that of an earlier order, at most 1."""
    return min(later / earlier, 1.0) if earlier > 0.0 else 0.0
