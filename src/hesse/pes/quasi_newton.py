"""Steps and Hessian updates of quasi-Newton walks, on flat coordinates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

__all__ = ["bofill_update", "limit_length", "prfo_step", "ts_bfgs_update"]

_TINY = 1e-12


def bofill_update(
    hessian: Float[Array, "d d"], step: Float[Array, "d"], gradient_change: Float[Array, "d"]
) -> Float[Array, "d d"]:
    """The Hessian made to satisfy `H step = change` (change of the gradient), without forcing a sign on any eigenvalue:
    the mixture of the symmetric rank-one update (Murtagh and Sargent) and Powell's, weighted as by Bofill, J. Comput.
    Chem. 15, 1 (1994)."""
    residual = gradient_change - hessian @ step
    length, size, overlap = step @ step, residual @ residual, residual @ step
    if length < _TINY or size < _TINY * length:
        return hessian
    powell = (np.outer(residual, step) + np.outer(step, residual)) / length - overlap * np.outer(step, step) / length**2
    # One when what is missing lies along the step; there the rank-one update is safe, elsewhere it can explode.
    weight = overlap**2 / (length * size)
    rank_one = np.outer(residual, residual) / overlap if weight > _TINY else np.zeros_like(hessian)
    return hessian + weight * rank_one + (1.0 - weight) * powell


def ts_bfgs_update(
    hessian: Float[Array, "d d"], step: Float[Array, "d"], gradient_change: Float[Array, "d"]
) -> Float[Array, "d d"]:
    """The Hessian made to satisfy `H step = change` near a saddle point (TS-BFGS): like BFGS it changes most what is
    stiff and known least, but it measures stiffness by the Hessian's absolute value, so that a negative mode stays one.
    Bofill, Int. J. Quantum Chem. 94, 324 (2003)."""
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
    """The step of partitioned rational-function optimization toward a first-order saddle point: uphill along the first
    eigenvector, downhill along all others. Banerjee, Adams, Simons, Shepard, J. Phys. Chem. 89, 52 (1985).

    Args:
        gradient: in the coordinates of `vectors`' rows.
        values, vectors: eigenvalues of the Hessian and eigenvectors as columns; the first is followed uphill.
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
    """`step`, shortened to the trust radius where it is longer."""
    length = float(np.linalg.norm(step))
    return step if length <= radius else step * (radius / length)
