"""Directional derivatives of a gradient by central differences, with an estimate of their error.

With `g(s)` the gradient at `x + s v` and the step e, the plain difference `D(e) = [g(e) − g(−e)]/2e` is off by
`e² g‴/6`; Richardson's combination of the steps e and 2e, `[4 D(e) − D(2e)]/3`, by `−e⁴ g⁗′/30`.

Three things limit a label, and each shows itself somewhere else:

* noise (an iteration stopped, a grid, rounding). The fourth difference of the five gradients used anyway,
  `g(2e) − 4g(e) + 6g(0) − 4g(−e) + g(−2e)`, has lost all smooth terms up to the cubic: noise of standard deviation δ
  leaves √70 δ in it (difference tables for noise: Moré and Wild, SIAM J. Sci. Comput. 33, 1292 (2011)). In the plain
  difference that noise is δ/(√2 e), in Richardson's 0.95 δ/e.
* truncation. For a smooth surface differences fall from order to order by a common ratio, which predicts the first
  neglected term. `|D(e) − D(2e)|/3` would be the error of the plain difference, far above that of Richardson's.
* a smooth bias of the gradient (self-consistency not fully reached). No choice of step shows it; it breaks the
  rotational identity, which the caller checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["DirectionalDerivative", "central_difference", "richardson"]

Gradient = Callable[[float], Float[np.ndarray, "n 3"]]

_SMOOTH_MARGIN = 4.0
"""A fourth difference up to this multiple of its prediction counts as smooth: ratios differ from order to order."""

_LARGEST_RATIO = 0.5
"""Differences that fall by less than this from order to order are no smooth series: noise, or a kink."""


@dataclass(frozen=True, eq=False)
class DirectionalDerivative:
    """`H v`, with root-mean-square estimates per component of its noise and truncation error (eV/Å² per unit of v)."""

    value: Float[np.ndarray, "n 3"]
    noise: float
    truncation: float


def central_difference(gradient: Gradient, origin: Float[np.ndarray, "n 3"], epsilon: float) -> DirectionalDerivative:
    """The second-order difference from `gradient(±epsilon)`; `origin` is `gradient(0)`.

    Two gradients cannot tell noise from truncation: the noise is reported as zero and the truncation estimate,
    `e² g‴/6` with `g‴` from the fall of the first two differences, holds within about a factor of 3 on smooth surfaces.
    """
    plus, minus = gradient(epsilon), gradient(-epsilon)
    first = 0.5 * (plus - minus)
    ratio = _ratio(_rms(plus + minus - 2.0 * origin), _rms(first))
    # A first difference below the second is no leading term: all of it may be truncation.
    share = ratio**2 / 6.0 if ratio < 1.0 else 1.0
    return DirectionalDerivative(first / epsilon, 0.0, share * _rms(first) / epsilon)


def richardson(gradient: Gradient, origin: Float[np.ndarray, "n 3"], epsilon: float) -> DirectionalDerivative:
    """The fourth-order difference from `gradient(±epsilon)` and `gradient(±2 epsilon)`; `origin` is `gradient(0)`."""
    plus, minus = gradient(epsilon), gradient(-epsilon)
    plus2, minus2 = gradient(2.0 * epsilon), gradient(-2.0 * epsilon)
    value = (8.0 * (plus - minus) - (plus2 - minus2)) / (12.0 * epsilon)
    # The k-th difference of step e stands for e^k times the k-th derivative along v.
    first = _rms(0.5 * (plus - minus))
    second = _rms(plus + minus - 2.0 * origin)
    third = _rms(0.5 * (plus2 - minus2) - (plus - minus))
    fourth = _rms(plus2 + minus2 - 4.0 * (plus + minus) + 6.0 * origin)
    ratio = max(_ratio(second, first), _ratio(third, second))
    smooth = _SMOOTH_MARGIN * third * ratio if ratio < _LARGEST_RATIO else 0.0
    noise = np.sqrt(max(fourth**2 - smooth**2, 0.0) / 70.0)
    # From one odd difference to the next; along some directions (a rotation of a diatomic) all odd ones vanish.
    fall = max(_ratio(third, first), _ratio(fourth, second))
    # 130 = 8² + 8² + 1² + 1²: the squared weights of Richardson's combination, over 12.
    return DirectionalDerivative(value, float(np.sqrt(130.0) / 12.0 * noise / epsilon), third * fall / (30.0 * epsilon))


def _rms(values: Float[np.ndarray, "n 3"]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _ratio(later: float, earlier: float) -> float:
    """By how much a difference falls from one order to a later one; never more than one on a step that makes sense."""
    return min(later / earlier, 1.0) if earlier > 0.0 else 0.0
