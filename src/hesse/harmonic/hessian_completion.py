"""A full Hessian from few of its products with vectors.

Unknown are the elements of the symmetric Hessian, known are the products of stored probes, and those of translations
(zero) and rotations (by the gradient), which cost nothing. The answer is the expected Hessian given all of them, when
deviations from an expected one (`hesse.harmonic.hessian_prior`) are Gaussian with variances that fall with the distance
of the atoms, and products have the variance of their errors. It is the symmetric matrix that deviates least from
expectation, in that measure, among those that reproduce the products. The idea that a Hessian is local, with a
correction that satisfies the products, is that of O1NumHess (arXiv 2508.07544); here both are one linear system.

Its matrix has a row for each component of each product. The error of the answer is estimated by leaving out one probe
after the other and predicting its product, which needs no further solutions (block formula of leave-one-out errors of
Gaussian regression, Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import GeometryError, LabelShapeError, LabelValueError, MissingLabelError, RequestError
from hesse.harmonic.hessian_prior import BlockSpread, HessianPrior, typical_hessian
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure, hessian_array

__all__ = ["CompletedHessian", "complete_hessian"]

MIN_ERROR = 1e-3
"""eV/Å²; products are not trusted beyond this error per component (of a probe of unit components)."""
PRIOR_SCALE = 0.15
"""Deviations of a Hessian from that of another level of theory, relative to those from the typical one."""
MAX_GIB = 2.0
"""Largest size of the linear system."""
_SMALL_EXTENT = 1e-3
"""Å; rotations about an axis through all atoms are left out."""


@dataclass(frozen=True, eq=False, repr=False)
class CompletedHessian(ShortRepr):
    """A Hessian that was completed from products.

    Attributes:
        hessian: eV/Å², symmetric.
        error: eV/Å², root-mean-square error of an element, from predicting each product by all others and from the
            stated errors of the products: that of a completion with one probe less, so that it is rather too large
            than too small.
        relative_error: `error` over the root-mean-square element.
        n_pairs: number of probes.
    """

    hessian: Float[Array, "n 3 n 3"]
    error: float
    relative_error: float
    n_pairs: int


def complete_hessian(
    structure: Structure,
    probes: ArrayLike,
    products: ArrayLike,
    *,
    forces: ArrayLike | None = None,
    errors: ArrayLike | float | None = None,
    prior: ArrayLike | None = None,
) -> CompletedHessian:
    """Complete the Hessian of a molecule from its products with some vectors.

    Args:
        structure: the molecule.
        probes: the vectors `v`, `[k, n, 3]`: random ones (Rademacher, Gaussian) serve much better than unit vectors.
        products: `H v`, eV/Å² times the unit of the probes, `[k, n, 3]`.
        forces: eV/Å, `[n, 3]`; with them the products of the rotations are known too.
        errors: estimated root-mean-square error per component of each product, `[k]`; at least 0.001 eV/Å².
        prior: an approximate Hessian, such as that of a cheaper level of theory, `(n, 3, n, 3)`, eV/Å²; by default a
            typical one of the distances in the molecule.

    Returns:
        The Hessian and its estimated error.

    Raises:
        MissingLabelError: there are no products.
        LabelShapeError: arrays that do not fit the molecule.
        LabelValueError: values that are not finite, or a probe of zero length.
        GeometryError: a periodic structure.
        RequestError: so many products of so many atoms that the linear system exceeds 2 GiB.
    """
    if structure.periodic:
        raise GeometryError(f'structure "{structure.id}" is periodic: Hessians of molecules can be completed')
    n = len(structure)
    vectors, values = (_pairs(structure, name, a) for name, a in (("probes", probes), ("products", products)))
    if vectors.shape != values.shape:
        raise LabelShapeError(f'structure "{structure.id}": {len(vectors)} probes, but {len(values)} products')
    if len(vectors) == 0:
        raise MissingLabelError(f'structure "{structure.id}" has no products to complete a Hessian from')
    lengths = np.linalg.norm(vectors, axis=1)
    if not (lengths > 0).all():
        raise LabelValueError(f'structure "{structure.id}": a probe is zero in all components')
    expected = typical_hessian(structure)
    if prior is not None:
        given = hessian_array(structure, prior).reshape(3 * n, 3 * n)
        expected = HessianPrior(0.5 * (given + given.T), _scaled(expected.spread, PRIOR_SCALE))
    rigid, rigid_products = _rigid_pairs(structure, _gradient(structure, forces))
    # Probes of unit length on average, so that one number is the error of all products.
    scale = np.sqrt(3 * n) / lengths
    stated = _errors(structure, errors, len(vectors)) * scale
    noise = np.maximum(stated, MIN_ERROR)
    known = np.concatenate([vectors * scale[:, None], rigid])
    targets = np.concatenate([values * scale[:, None], rigid_products])
    size = (3 * n * len(known)) ** 2 * 8 / 2**30
    if size > MAX_GIB:
        raise RequestError(
            f'structure "{structure.id}": {len(vectors)} products of {n} atoms give a linear system of {size:.1f} GiB, '
            f"more than {MAX_GIB:g}. Use fewer products, or compute the Hessian"
        )
    sigma = np.concatenate([noise, np.full(len(rigid), MIN_ERROR)])
    hessian, left_out = _solve(expected, known.T, targets.T, sigma, len(vectors))
    # Errors that all products share (truncation of differences) do not show where one is predicted from the others.
    by_leaving_out = np.square(left_out).sum(0).mean() / (3 * n) ** 2
    error = float(np.sqrt(by_leaving_out + np.square(stated).mean() / (3 * n)))
    overall = float(np.sqrt(np.mean(np.square(hessian))))
    return CompletedHessian(hessian.reshape(n, 3, n, 3), error, error / max(overall, 1e-12), len(vectors))


def _pairs(structure: Structure, name: str, given: ArrayLike) -> Float[Array, "k 3n"]:
    n = len(structure)
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise LabelShapeError(f'structure "{structure.id}": {name}: expected numbers [k, {n}, 3]') from None
    if array.ndim != 3 or array.shape[1:] != (n, 3):
        raise LabelShapeError(f'structure "{structure.id}": {name} of shape {array.shape}, expected [k, {n}, 3]')
    if not np.isfinite(array).all():
        raise LabelValueError(f'structure "{structure.id}": {name} that are not finite numbers')
    return array.reshape(len(array), 3 * n)


def _gradient(structure: Structure, forces: ArrayLike | None) -> Float[Array, "n 3"] | None:
    if forces is None:
        return None
    array = np.asarray(forces, dtype=np.float64)
    if array.shape != (len(structure), 3) or not np.isfinite(array).all():
        raise LabelShapeError(f'structure "{structure.id}": expected finite forces [{len(structure)}, 3]')
    return -array


def _errors(structure: Structure, errors: ArrayLike | float | None, count: int) -> Float[Array, "k"]:
    given = np.broadcast_to(np.asarray(0.0 if errors is None else errors, dtype=np.float64), (count,))
    if not (given[~np.isnan(given)] >= 0).all():
        raise LabelValueError(f'structure "{structure.id}": errors of products must not be below zero')
    return np.nan_to_num(given)


def _scaled(spread: BlockSpread, factor: float) -> BlockSpread:
    variances = (v * factor**2 for v in (spread.parallel, spread.mixed, spread.across))
    return BlockSpread(spread.along, spread.units, *variances)


def _rigid_pairs(
    structure: Structure, gradient: Float[Array, "n 3"] | None
) -> tuple[Float[Array, "m 3n"], Float[Array, "m 3n"]]:
    """Translations and rotations, with the length of a probe, and their products: zero, and `e × g` for axis e."""
    n = len(structure)
    centered = structure.positions - structure.positions.mean(0)
    vectors = [np.tile(axis, (n, 1)) * np.sqrt(3.0) for axis in np.eye(3)]
    products = [np.zeros((n, 3))] * 3
    for axis in np.linalg.svd(centered)[2]:
        if gradient is None:
            break
        turned = np.cross(axis, centered)
        length = float(np.linalg.norm(turned))
        if length > _SMALL_EXTENT * np.sqrt(n):
            vectors.append(turned * np.sqrt(3 * n) / length)
            products.append(np.cross(axis, gradient) * np.sqrt(3 * n) / length)
    return np.stack(vectors).reshape(-1, 3 * n), np.stack(products).reshape(-1, 3 * n)


def _solve(
    prior: HessianPrior,
    vectors: Float[Array, "3n m"],
    products: Float[Array, "3n m"],
    sigma: Float[Array, "m"],
    n_probes: int,
) -> tuple[Float[Array, "3n 3n"], Float[Array, "3n k"]]:
    """The Hessian, and the error of each product of a probe when it is predicted from all others."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.linalg.lapack import dpotri

    size, m = vectors.shape
    system = _covariance(prior.spread, vectors)
    system[np.arange(size * m), np.arange(size * m)] += np.tile(sigma**2, size)
    residual = (products - prior.mean @ vectors).reshape(-1)
    factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    weights = cho_solve(factor, residual)
    half = weights.reshape(size, m) @ vectors.T
    hessian = prior.mean + prior.spread.apply(0.5 * (half + half.T))
    inverse, _ = dpotri(factor[0], lower=True, overwrite_c=True)
    errors = np.empty((size, n_probes))
    rows = np.arange(size) * m
    for k in range(n_probes):
        block = np.tril(inverse[np.ix_(rows + k, rows + k)])
        errors[:, k] = np.linalg.solve(block + np.tril(block, -1).T, weights[rows + k])
    return hessian, errors


def _covariance(spread: BlockSpread, vectors: Float[Array, "3n m"]) -> Float[Array, "3nm 3nm"]:
    """Covariance of all components of all products: that of component a of product k with b of l is the sum over c
    and d of `cov(H_ac, H_bd) v_ck v_dl`."""
    size, m = vectors.shape
    n = size // 3
    v = vectors.reshape(n, 3, m)
    result = np.zeros((n, 3, m, n, 3, m))
    identity = np.eye(3)
    gram = np.einsum("jak,jal->jkl", v, v)
    for i in range(n):
        along, units = spread.along[i], spread.units[i]
        parallel, mixed, across = spread.parallel[i], spread.mixed[i], spread.across[i]
        p = np.einsum("ja,jak->jk", units, v)  # components of the vectors along the lines to atom i
        square = p[:, :, None] * p[:, None]
        first = parallel[:, None, None] * square + mixed[:, None, None] * (gram - square)
        second = mixed[:, None, None] * square + across[:, None, None] * (gram - square)
        result[i, :, :, i] += 0.5 * np.einsum("jac,jkl->akcl", along, first, optimize=True)
        result[i, :, :, i] += 0.5 * np.einsum("jac,jkl->akcl", identity - along, second, optimize=True)
        # The same element seen from the other atom: the matrix is symmetric.
        here_along = np.einsum("jab,bl->jal", along, v[i])
        there_along = along @ v
        here_across, there_across = v[i] - here_along, v - there_along
        weighted = parallel[:, None, None] * there_along + mixed[:, None, None] * there_across
        other = mixed[:, None, None] * there_along + across[:, None, None] * there_across
        result[i] += 0.5 * np.einsum("jal,jdk->akjdl", here_along, weighted, optimize=True)
        result[i] += 0.5 * np.einsum("jal,jdk->akjdl", here_across, other, optimize=True)
    return result.reshape(size * m, size * m)
