"""Parts of a random split: groups of structures in a row, cut at fractions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array

__all__ = ["assign_parts", "working_fractions"]

_STEP = 0.05


def assign_parts(sizes: Sequence[int], fractions: Sequence[float]) -> Int[Array, "groups"]:
    """The part of each group: that in which its middle lies.

    Args:
        sizes: numbers of structures of the groups, in the order in which they are cut.
        fractions: fractions of the structures, one for each part.

    Returns:
        Numbers of the parts from 0; the number of parts for groups that are in none.
    """
    ends = np.cumsum(fractions) * sum(sizes)
    middles = np.cumsum(sizes) - 0.5 * np.asarray(sizes)
    return np.searchsorted(ends, middles)


def working_fractions(sizes: Sequence[int], fractions: Sequence[float]) -> tuple[float, ...] | None:
    """Fractions near to those given that leave no part empty.

    Args:
        sizes: numbers of structures of the groups, in the order in which they are cut.
        fractions: fractions that leave a part empty.

    Returns:
        Fractions of the same sum; None if none are found.
    """
    total, n = sum(fractions), len(fractions)
    candidates = [(total / n,) * n] if n > 2 else []
    if n == 2:
        lasts = np.arange(_STEP, total - 1e-9, _STEP)
        nearest = lasts[np.argsort(np.abs(lasts - fractions[1]), kind="stable")]
        candidates = [(total - float(last), float(last)) for last in nearest]
    for candidate in candidates:
        rounded = tuple(round(fraction, 3) for fraction in candidate)
        if sum(rounded) <= 1 + 1e-9 and set(range(n)) <= set(assign_parts(sizes, rounded).tolist()):
            return rounded
    return None
