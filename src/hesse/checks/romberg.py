"""Romberg extrapolation of central differences to step zero."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.checks.context import relative_error

__all__ = ["STEPS", "derivative_error"]

STEPS = (0.004, 0.002, 0.001)
"""Steps in Å (or strain, or fractions of the size of parameters), each half of the previous one."""


def derivative_error(
    difference: Callable[[float], Float[Array, "*any"]], exact: Float[Array, "*any"], *, size: float, fine_step: float
) -> tuple[float, float]:
    """Error of a derivative compared with finite differences.

    The reference is Romberg's extrapolation or the difference over the short step, whichever is nearer: a kink within a
    long step spoils the first, rounding the second, and a wrong derivative is far from both.

    Args:
        difference: the central difference `(f(h) − f(−h)) / 2h` as a function of the step h.
        exact: the derivative to check.
        size: magnitude of the derivative, to divide by.
        fine_step: the short step.

    Returns:
        The relative error, and the order with which central differences approach `exact`: 2 for a smooth function, NaN
        if they agree to the last bit.
    """
    central = [difference(h) for h in STEPS]
    extrapolated = [(4 * finer - coarser) / 3 for coarser, finer in itertools.pairwise(central)]
    limits = ((16 * extrapolated[1] - extrapolated[0]) / 15, difference(fine_step))
    deviations = [float(np.abs(c - exact).max()) for c in central]
    order = float(np.log2(deviations[0] / deviations[1])) if min(deviations) > 0 else np.nan
    errors = [relative_error(limit, exact, size) for limit in limits]
    return (min(errors) if np.isfinite(errors).all() else float("nan")), order
