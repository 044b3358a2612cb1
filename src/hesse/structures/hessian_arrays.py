"""Hessians that a caller gives as arrays: their shape and values are checked in one place."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import LabelShapeError, LabelValueError, first_line
from hesse.structures.structure import Structure

__all__ = ["hessian_array"]


def hessian_array(structure: Structure, hessian: ArrayLike) -> Float[Array, "n 3 n 3"]:
    """A Hessian that a caller gave, as an array of its own.

    Args:
        structure: the structure of the Hessian.
        hessian: eV/Å², `[n, 3, n, 3]`.

    Returns:
        A copy in float64.

    Raises:
        LabelShapeError: another shape, or no numbers; the message tells how to convert other layouts.
        LabelValueError: not all numbers are finite.
    """
    n = len(structure)
    shape = (n, 3, n, 3)
    try:
        result = np.asarray(hessian, dtype=np.float64).copy()  # np.array warns of tensors
    except (TypeError, ValueError) as error:
        raise LabelShapeError(
            f"hessian: expected an array of shape {shape}, got {type(hessian).__name__} ({first_line(error)})"
        ) from None
    if result.shape != shape:
        raise LabelShapeError(
            f'structure "{structure.id}": Hessian of shape {result.shape}, expected {shape}{_advice(result.shape, n)}'
        )
    if not np.isfinite(result).all():
        raise LabelValueError(f'structure "{structure.id}": its Hessian holds numbers that are not finite')
    return result


def _advice(shape: tuple[int, ...], n: int) -> str:
    """How to convert a Hessian in another layout; empty for arrays of another size."""
    if n > 1 and shape == (n, n, 3, 3):
        return ". Convert the layout of phonopy with hesse.datasets.from_phonopy"
    return f". Use .reshape{(n, 3, n, 3)}" if np.prod(shape) == (3 * n) ** 2 else ""
