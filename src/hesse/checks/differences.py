"""Central differences, extrapolated to step zero."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

__all__ = ["STEPS", "extrapolated"]

STEPS = (0.004, 0.002, 0.001)
"""Å (strains, and fractions of the size of parameters): each half of the one before, for Romberg's extrapolation."""


def extrapolated(
    plus: Float[Array, "steps *any"], minus: Float[Array, "steps *any"], exact: Float[Array, "*any"]
) -> tuple[Float[Array, "*any"], float]:
    """The limit of `(plus − minus)/2h` for h to zero, from values at plus and minus each of `STEPS` (Romberg), and the
    order with which the differences approach `exact`: 2 for a smooth function, NaN where they agree to the last bit."""
    steps = np.array(STEPS).reshape(-1, *[1] * (plus.ndim - 1))
    central = (plus - minus) / (2 * steps)
    gaps = [float(np.abs(c - exact).max()) for c in central]
    order = float(np.log2(gaps[0] / gaps[1])) if min(gaps) > 0 else np.nan
    once = (4 * central[1:] - central[:-1]) / 3
    return (16 * once[1] - once[0]) / 15, order
