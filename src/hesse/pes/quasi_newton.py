"""Steps and Hessian updates of quasi-Newton methods, on flat coordinates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

__all__ = ["bofill_update", "limit_length", "prfo_step", "ts_bfgs_update"]

_TINY = 1e-12


def bofill_update(
    hessian: Float[Array, "d d"], step: Float[Array, "d"], gradient_change: Float[Array, "d"]
) -> Float[Array, "d d"]:
    """Update a Hessian so that `H step = gradient_change`, without imposing a sign on any eigenvalue.

    A mixture of the symmetric rank-one update (Murtagh and Sargent) and Powell's, weighted as by Bofill, J. Comput.
    Chem. 15, 1 (1994).

    Args:
        hessian: the Hessian before, `[d, d]`.
        step: change of the coordinates, `[d]`.
        gradient_change: change of the gradient, `[d]`.

    Returns:
        The updated Hessian.
    """
    residual = gradient_change - hessian @ step
    length, size, overlap = step @ step, residual @ residual, residual @ step
    if length < _TINY or size < _TINY * length:
        return hessian
    powell = (np.outer(residual, step) + np.outer(step, residual)) / length - overlap * np.outer(step, step) / length**2
    # The weight is 1 where the residual is parallel to the step: there the rank-one update is stable.
    weight = overlap**2 / (length * size)
    rank_one = np.outer(residual, residual) / overlap if weight > _TINY else np.zeros_like(hessian)
    return hessian + weight * rank_one + (1.0 - weight) * powell


def ts_bfgs_update(
    hessian: Float[Array, "d d"], step: Float[Array, "d"], gradient_change: Float[Array, "d"]
) -> Float[Array, "d d"]:
    """Update a Hessian near a saddle point so that `H step = gradient_change` (TS-BFGS).

    Like BFGS, but with the absolute value of the Hessian, so that a negative mode stays negative. Bofill, Int. J.
    Quantum Chem. 94, 324 (2003).

    Args:
        hessian: the Hessian before, `[d, d]`.
        step: change of the coordinates, `[d]`.
        gradient_change: change of the gradient, `[d]`.

    Returns:
        The updated Hessian.
    """
    residual = gradient_change - hessian @ step
    values, vectors = np.linalg.eigh(hessian)
    stiff = vectors @ (np.abs(values) * (vectors.T @ step))
    first, second = gradient_change @ step, stiff @ step
    if first**2 + second**2 < _TINY**2:
        return hessian
    direction = (first * gradient_change + second * stiff) / (first**2 + second**2)
    cross = np.outer(residual, direction)
    return hessian + cross + cross.T - (residual @ step) * np.outer(direction, direction)


def prfo_step(
    gradient: Float[Array, "d"], values: Float[Array, "d"], vectors: Float[Array, "d d"]
) -> Float[Array, "d"]:
    """The step of partitioned rational-function optimization toward a first-order saddle point.

    It goes uphill along the first eigenvector and downhill along all others. Banerjee, Adams, Simons, Shepard, J. Phys.
    Chem. 89, 52 (1985).

    Args:
        gradient: the gradient, `[d]`.
        values: eigenvalues of the Hessian; the first mode is followed uphill.
        vectors: eigenvectors as columns, `[d, modes]`.

    Returns:
        The step, `[d]`.
    """
    along = vectors.T @ gradient
    components = np.empty_like(along)
    up = 0.5 * (values[0] + np.hypot(values[0], 2.0 * along[0]))
    components[0] = along[0] / max(up - values[0], _TINY)
    if len(along) > 1:
        augmented = np.zeros((len(along), len(along)))
        np.fill_diagonal(augmented, [*values[1:], 0.0])
        augmented[-1, :-1] = augmented[:-1, -1] = along[1:]
        down = min(float(np.linalg.eigvalsh(augmented)[0]), 0.0)
        components[1:] = -along[1:] / np.maximum(values[1:] - down, _TINY)
    return vectors @ components


def limit_length(step: Float[Array, "d"], radius: float) -> Float[Array, "d"]:
    """Shorten a step to a maximal length.

    Args:
        step: the step, `[d]`.
        radius: its maximal length.

    Returns:
        The step, shortened where it is longer than `radius`.
    """
    length = float(np.linalg.norm(step))
    return step if length <= radius else step * (radius / length)
