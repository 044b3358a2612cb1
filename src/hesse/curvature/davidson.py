"""The lowest eigenpairs of a Hessian from Hessian-vector products, by the block Davidson method.

For soft modes of minima and the reaction mode of saddle points in systems that are too large for full Hessians. The
method is that of Davidson (J. Comput. Phys. 17, 87 (1975)) with blocks, thick restarts (Stathopoulos, Saad, Wu, SIAM J.
Sci. Comput. 19, 227 (1998)) and full reorthogonalization: the subspace is expanded by the residuals of its lowest Ritz
vectors, multiplied by the inverse of a model Hessian (springs between neighboring atoms). Without the model Hessian it
is equivalent to a block Lanczos method (J. Res. Natl. Bur. Stand. 45, 255 (1950)), which needs up to three times as
many products at a minimum, because eigenvalues are dense at the soft end of the spectrum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.curvature.operator import HessianOperator
from hesse.curvature.preconditioner import model_hessian_preconditioner
from hesse.engine import Engine
from hesse.errors import EngineError, LabelShapeError, RequestError, check_numbers, check_whole_numbers
from hesse.harmonic.normal_modes import rigid_body_basis
from hesse.potential import Potential, dtype_and_device
from hesse.runtime.progress import track
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Request, Structure
from hesse.units import HBAR, INVERSE_CM

__all__ = ["HessianMatvec", "LowestModes", "lowest_eigenpairs"]

HessianMatvec = Callable[[Float[Array, "k n 3"]], Float[Array, "k n 3"]]
"""A function from several directions `v` to their products `H v` in eV/Å²."""

DIAGONAL_SHIFT = 0.05
"""eV/Å² (or eV/(Å² u)): added to the diagonal of the model Hessian. Values from 0.02 to 0.5 work equally well; smaller
ones overestimate the softest motions."""
EXTRA_ITERATIONS = 4
"""Iterations on the next eigenpair after all requested ones have converged: it may turn out to be lower than those."""
MAX_SUBSPACE = 240
"""Number of vectors above which the subspace is restarted with the lowest third."""


@dataclass(frozen=True, eq=False, repr=False)
class LowestModes(ShortRepr):
    """The lowest eigenpairs of a Hessian, rigid-body motions excluded.

    Attributes:
        eigenvalues: in ascending order, eV/Å²; with masses ω², eV/(Å² u).
        vectors: orthonormal eigenvectors; with masses in mass-weighted coordinates.
        residuals: `|H v − λ v|`, in the unit of the eigenvalues. An exact eigenvalue lies within this distance of λ.
            The actual error is smaller, about the squared residual divided by the gap to the next eigenvalue.
        n_products: number of Hessian-vector products computed.
        converged: which residuals are below the tolerance.
        masses: u; None without mass-weighting.
    """

    eigenvalues: Float[Array, "modes"]
    vectors: Float[Array, "modes n 3"]
    residuals: Float[Array, "modes"]
    n_products: int
    converged: Bool[Array, "modes"]
    masses: Float[Array, "n"] | None

    def __len__(self) -> int:
        return len(self.eigenvalues)

    @property
    def cartesian(self) -> Float[Array, "modes n 3"]:
        """Cartesian displacements: the vectors; with masses, per unit of the normal coordinate, u^-1/2."""
        return self.vectors if self.masses is None else self.vectors / np.sqrt(self.masses)[None, :, None]

    @property
    def frequencies(self) -> Float[Array, "modes"]:
        """Wavenumbers in cm⁻¹, negative for imaginary modes.

        Raises:
            RequestError: the eigenpairs were computed without masses.
        """
        if self.masses is None:
            raise RequestError("frequencies need masses: pass masses=True")
        return np.sign(self.eigenvalues) * np.sqrt(np.abs(self.eigenvalues)) * HBAR / INVERSE_CM


def lowest_eigenpairs(
    operator: Potential | Engine | HessianMatvec,
    structure: Structure,
    count: int = 1,
    *,
    masses: ArrayLike | bool = False,
    tolerance: float = 1e-3,
    max_products: int | None = None,
    start: ArrayLike | None = None,
    preconditioned: bool = True,
    seed: int = 0,
    strict: bool = True,
    quiet: bool = True,
) -> LowestModes:
    """Compute the lowest eigenpairs of the Hessian of a structure without forming the Hessian.

    Rigid-body motions are projected out (translations; for molecules also rotations). The number of products grows
    slowly with the number of atoms.

    As in all iterative methods with a random start, a small residual proves that there is an eigenvalue, but not that
    no lower one exists. Compute one or two more pairs than needed if this matters.

    Args:
        operator: a potential, an engine, or a function from directions `[k, n, 3]` to products of the same shape.
            Products of a potential in float32 have errors of about 1e-6 of the largest eigenvalue; if this exceeds the
            tolerance, convert it (`potential.double()`).
        structure: the geometry.
        count: number of eigenpairs. They may be degenerate.
        masses: True for ASE's standard atomic weights, or masses in u, `[n]`, for the mass-weighted Hessian and
            frequencies. False for the Hessian itself.
        tolerance: limit of the residuals, in the unit of the eigenvalues.
        max_products: limit of the number of products; by default that of the full Hessian (3n), at least 300.
        start: start directions, `[n, 3]` or `[k, n, 3]`, such as the mode of a similar geometry or a guess of the
            reaction coordinate. Random directions are added.
        preconditioned: whether the model Hessian is used.
        seed: seed of the random directions.
        strict: whether eigenpairs that did not converge are an error; otherwise they are returned as they are.
        quiet: show no progress.

    Returns:
        The eigenpairs in ascending order.

    Raises:
        RequestError: an invalid count, tolerance or mass; more eigenpairs than the structure has.
        LabelShapeError: directions or products of a wrong shape.
        EngineError: no convergence, or products that are not finite.
        GeometryError: atoms overlap.
        ConfigError: an option that is not a number.
    """
    if not isinstance(structure, Structure):
        raise RequestError(f"expected a hesse.Structure, got {type(structure).__name__}; of ASE atoms: hesse.from_ase")
    n = len(structure)
    weights, atom_masses = _mass_weights(structure, masses)
    check_numbers(tolerance=tolerance)
    check_whole_numbers(count=count, seed=seed, **({} if max_products is None else {"max_products": max_products}))
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise RequestError(f"the tolerance must be a positive number, got {tolerance}")
    if seed < 0:
        raise RequestError(f"the seed must be zero or more, got {seed}")
    if max_products is not None and max_products < 1:
        raise RequestError(f"max_products must be at least 1, got {max_products}")
    rigid = rigid_body_basis(structure, np.ones(n) if atom_masses is None else atom_masses).reshape(-1, 3 * n).T
    if not 1 <= count <= 3 * n - rigid.shape[1]:
        raise RequestError(
            f'structure "{structure.id}" has {3 * n - rigid.shape[1]} modes without rigid motions, '
            f"{count} were requested"
        )
    subspace = _Subspace(_weighted_matvec(operator, structure, weights), rigid)
    if preconditioned:
        structure.check_no_overlap()  # the model Hessian has the directions of pairs of atoms
    precondition = model_hessian_preconditioner(structure, weights, DIAGONAL_SHIFT) if preconditioned else None
    limit = max(3 * n, 300) if max_products is None else max_products
    block = _initial_block(structure, start, count, weights, subspace, precondition, seed)
    extra = 0
    with track("lowest modes", limit, quiet=quiet) as advance:
        while True:
            n_added = subspace.expand(block[:, : limit - subspace.n_products])
            values, vectors, residuals = subspace.ritz_pairs(count + 1)
            lengths = np.linalg.norm(residuals, axis=0)
            advance(n_added, note=f"largest residual {lengths[:count].max():.1e}")
            unconverged = np.flatnonzero(lengths[:count] > tolerance)
            converged = len(unconverged) == 0
            extra = extra + 1 if converged else 0
            # A subspace that cannot be expanded is the full space: its eigenpairs are exact.
            exhausted = n_added == 0 or (converged and len(values) == count)
            if extra > EXTRA_ITERATIONS or exhausted or subspace.n_products >= limit:
                break
            correction = residuals[:, [count] if converged else unconverged]
            block = correction if precondition is None else precondition(correction)
            subspace.thick_restart(MAX_SUBSPACE, 2 * count + MAX_SUBSPACE // 3)
    values, vectors, lengths = values[:count], vectors[:, :count], lengths[:count]
    result = LowestModes(
        values, vectors.T.reshape(-1, n, 3), lengths, subspace.n_products, lengths <= tolerance, atom_masses
    )
    if strict and not (len(result) == count and result.converged.all()):
        raise EngineError(
            f'structure "{structure.id}": {int(result.converged.sum())} of {count} eigenpairs converged to '
            f"{tolerance:g} in {result.n_products} products (largest residual {lengths.max():.1e}, lowest eigenvalue "
            f"{values[0]:.4g}). "
            "Allow more (max_products) or a larger tolerance, take a potential in float64, or take them as they are "
            "(strict=False)."
        )
    return result


class _Subspace:
    """Orthonormal vectors without rigid-body motions, and their products with the operator."""

    def __init__(self, operator: Callable[[Float[Array, "d m"]], Float[Array, "d m"]], rigid: Float[Array, "d r"]):
        self.operator, self.rigid = operator, rigid
        self.vectors = self.hessian_products = np.zeros((len(rigid), 0))
        self.n_products = 0

    def expand(self, block: Float[Array, "d m"]) -> int:
        """Add the components of `block` that are linearly independent of the subspace. Returns their number."""
        new = self._orthonormalize(block)
        if new.shape[1]:
            hessian_products = self._project(self.operator(new))
            self.n_products += new.shape[1]
            self.vectors = np.concatenate([self.vectors, new], axis=1)
            self.hessian_products = np.concatenate([self.hessian_products, hessian_products], axis=1)
        return new.shape[1]

    def ritz_pairs(self, count: int) -> tuple[Float[Array, "m"], Float[Array, "d m"], Float[Array, "d m"]]:
        """The lowest Ritz values, Ritz vectors and residuals."""
        values, rotation = self._rayleigh_ritz(count)
        vectors = self.vectors @ rotation
        return values, vectors, self.hessian_products @ rotation - vectors * values

    def thick_restart(self, max_vectors: int, n_kept: int) -> None:
        """If there are more than `max_vectors` vectors, keep the `n_kept` lowest Ritz vectors."""
        if self.vectors.shape[1] > max_vectors:
            rotation = self._rayleigh_ritz(n_kept)[1]
            self.vectors, self.hessian_products = self.vectors @ rotation, self.hessian_products @ rotation

    def _rayleigh_ritz(self, count: int) -> tuple[Float[Array, "m"], Float[Array, "k m"]]:
        projected = self.vectors.T @ self.hessian_products
        values, rotation = np.linalg.eigh(0.5 * (projected + projected.T))
        return values[:count], rotation[:, :count]

    def _project(self, vectors: Float[Array, "d m"]) -> Float[Array, "d m"]:
        return vectors - self.rigid @ (self.rigid.T @ vectors)

    def _orthonormalize(self, block: Float[Array, "d m"]) -> Float[Array, "d m"]:
        """Orthonormal basis of the components of `block` orthogonal to rigid-body motions and to the subspace."""
        new = block / np.linalg.norm(block, axis=0).clip(min=np.finfo(float).tiny)
        for _ in range(3):  # repeated, because cancellation leaves errors in small components
            new = self._project(new - self.vectors @ (self.vectors.T @ new))
            left, sizes, _ = np.linalg.svd(new, full_matrices=False)
            new = left[:, sizes > 1e-8]
        return new


def _initial_block(
    structure: Structure,
    start: ArrayLike | None,
    count: int,
    weights: Float[Array, "3n"],
    subspace: _Subspace,
    precondition: Callable[[Float[Array, "3n m"]], Float[Array, "3n m"]] | None,
    seed: int,
) -> Float[Array, "3n m"]:
    """The start directions and random ones; with a preconditioner the latter are soft modes of the model Hessian."""
    n = len(structure)
    try:
        directions = np.zeros((0, n, 3)) if start is None else np.asarray(start, dtype=np.float64)
    except (TypeError, ValueError):
        raise LabelShapeError(f"start: expected directions of shape {(n, 3)} or (k, {n}, 3), got {start!r}") from None
    if directions.shape[-2:] != (n, 3) or directions.ndim not in (2, 3) or not np.isfinite(directions).all():
        raise LabelShapeError(f"expected finite directions of shape {(n, 3)} or (k, {n}, 3), got {directions.shape}")
    directions = directions.reshape(-1, 3 * n).T / weights[:, None]
    rng = np.random.default_rng(seed)
    # At least one random direction: a symmetric start would only find modes of the same symmetry.
    random = rng.normal(size=(3 * n, max(count + 1 - directions.shape[1], 1)))
    if precondition is not None:
        for _ in range(3):
            random = np.linalg.qr(subspace._project(precondition(random)))[0]
    return np.concatenate([directions, random], axis=1)


def _mass_weights(
    structure: Structure, masses: ArrayLike | bool
) -> tuple[Float[Array, "3n"], Float[Array, "n"] | None]:
    """1/√mass of each coordinate (ones without masses), and the masses."""
    n = len(structure)
    if masses is False:
        return np.ones(3 * n), None
    atom_masses = np.asarray(structure.atomic_masses if masses is True else masses, dtype=np.float64)
    if atom_masses.shape != (n,) or not (np.isfinite(atom_masses).all() and (atom_masses > 0).all()):
        raise RequestError(f'structure "{structure.id}": expected {n} positive masses in u, got {atom_masses}')
    return np.repeat(1.0 / np.sqrt(atom_masses), 3), atom_masses


def _weighted_matvec(
    source: Potential | Engine | HessianMatvec, structure: Structure, weights: Float[Array, "3n"]
) -> Callable[[Float[Array, "3n m"]], Float[Array, "3n m"]]:
    """Function from columns of (mass-weighted) directions to columns of (mass-weighted) products."""
    matvec = _matvec(source, structure)
    n = len(structure)

    def apply(columns: Float[Array, "3n m"]) -> Float[Array, "3n m"]:
        directions = (weights[:, None] * columns).T.reshape(-1, n, 3)
        products = np.asarray(matvec(directions), dtype=np.float64)
        if products.shape != directions.shape:
            raise LabelShapeError(f"products of shape {products.shape} for directions of shape {directions.shape}")
        if not np.isfinite(products).all():
            raise EngineError(f'structure "{structure.id}": a Hessian-vector product is not a finite number')
        return weights[:, None] * products.reshape(-1, 3 * n).T

    return apply


def _matvec(source: Potential | Engine | HessianMatvec, structure: Structure) -> HessianMatvec:
    if isinstance(source, Potential):
        dtype, device = dtype_and_device(source)
        hessian_operator = HessianOperator(source, structure)

        def by_potential(directions: Float[Array, "k n 3"]) -> Float[Array, "k n 3"]:
            products = hessian_operator(torch.as_tensor(directions, dtype=dtype, device=device))
            return products.to("cpu", torch.float64).numpy()

        return by_potential
    if isinstance(source, Engine):
        engine = source

        def by_engine(directions: Float[Array, "k n 3"]) -> Float[Array, "k n 3"]:
            labels = engine.compute(structure, Request(energy=False, probes=torch.from_numpy(directions)))
            assert labels.hvp is not None
            return labels.hvp.numpy()

        return by_engine
    if callable(source):
        return source
    raise RequestError(
        f"expected a potential, an engine, or a function of directions [k, n, 3], got a {type(source).__name__}"
    )
