"""The lowest eigenpairs of a Hessian from its products with vectors alone: soft modes of a minimum, the reaction mode
of a saddle point, for systems whose Hessian nobody wants to compute.

The method is Davidson's (J. Comput. Phys. 17, 87 (1975)) with blocks, thick restarts (Stathopoulos, Saad, Wu, SIAM J.
Sci. Comput. 19, 227 (1998)) and full reorthogonalization: the space spanned so far grows by the residuals of its best
eigenvectors, divided by a crude model of the Hessian (springs between near atoms). Without the model it is Lanczos'
method (J. Res. Natl. Bur. Stand. 45, 255 (1950)), which needs up to three times as many products for a minimum:
the soft end of a spectrum is its crowded end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from ase.data import atomic_masses
from jaxtyping import Bool, Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.curvature.operator import HessianOperator
from hesse.curvature.preconditioner import model_hessian_preconditioner
from hesse.errors import EngineError, LabelShapeError, RequestError
from hesse.harmonic.normal_modes import rigid_body_basis
from hesse.potential import Potential, dtype_and_device
from hesse.runtime.progress import track
from hesse.structures import Properties, Request, Structure
from hesse.units import HBAR, INVERSE_CM

__all__ = ["HessianMatvec", "LowestModes", "SupportsCompute", "lowest_modes"]

HessianMatvec = Callable[[Float[Array, "k n 3"]], Float[Array, "k n 3"]]
"""`v ↦ H v` in eV/Å², for several directions at once."""

DIAGONAL_SHIFT = 0.05
"""eV/Å² (or eV/(Å² u)): added to the springs. Anything from 0.02 to 0.5 does; below, floppy motions get too far."""
EXTRA_ITERATIONS = 4
"""Products spent on the next eigenpair once all that were asked have converged: it may turn out to be a lower one."""
MAX_SUBSPACE = 240
"""Vectors kept before the space is cut down to the best third."""


@runtime_checkable
class SupportsCompute(Protocol):
    """What every `hesse.engines.Engine` does."""

    def compute(self, structure: Structure, request: Request) -> Properties:
        """Labels of one structure."""


@dataclass(frozen=True, eq=False)
class LowestModes:
    """The lowest eigenpairs of a Hessian in the space without rigid motions.

    Attributes:
        eigenvalues: in rising order, eV/Å²; with masses ω², eV/(Å² u).
        vectors: orthonormal; with masses in mass-weighted coordinates.
        residuals: `|H v − λ v|`, in the unit of the eigenvalues. An exact eigenvalue lies within this of λ; the
            distance itself is smaller, about the residual squared over the gap to the next eigenvalue.
        products: Hessian-vector products that were taken.
        converged: which residuals are within the tolerance.
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
        """How the atoms move: the vectors themselves, or with masses displacements per unit of the normal coordinate,
        u^-1/2."""
        return self.vectors if self.masses is None else self.vectors / np.sqrt(self.masses)[None, :, None]

    @property
    def frequencies(self) -> Float[Array, "modes"]:
        """Wavenumbers in cm⁻¹, imaginary ones negative. Raises RequestError without masses."""
        if self.masses is None:
            raise RequestError("frequencies need masses: lowest_modes(..., masses=True)")
        return np.sign(self.eigenvalues) * np.sqrt(np.abs(self.eigenvalues)) * HBAR / INVERSE_CM


def lowest_modes(
    operator: Potential | SupportsCompute | HessianMatvec,
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
    """The `count` lowest eigenpairs of the Hessian at `structure`, rigid motions projected out (translations; rotations
    too where nothing is periodic). No Hessian is formed, and the number of products grows slowly with that of atoms.

    Which eigenvalues are the lowest is found from a random start, as in all such methods: a residual proves that there
    is an eigenvalue, not that none lies below. Ask for one or two more than you need where that matters.

    Args:
        subject: a potential; an engine; or a function from directions `[k, n, 3]` to products of the same shape.
            Potentials in float32 have products good to about 1e-6 of the largest eigenvalue: convert them
            (`potential.double()`) where that is not below the tolerance.
        structure: where.
        count: how many eigenpairs. They may be degenerate.
        masses: True for ASE's standard atomic weights, or u, `[n]`: the mass-weighted Hessian, frequencies.
        tolerance: of the residuals, in the unit of the eigenvalues.
        max_products: give up after so many; by default what the full Hessian would take (3n), at least 300.
        start: directions to start from, `[n, 3]` or `[k, n, 3]`: the mode of a geometry near by, a guess of the
            reaction. Random ones fill up.
        preconditioned: whether the springs are used.
        seed: of the random start.
        strict: raise where eigenpairs did not converge; otherwise they are returned as they are.
        quiet: show no progress.

    Raises:
        RequestError: a count, tolerance, or masses that cannot be; more eigenpairs than the structure has.
        LabelShapeError: directions or products of a wrong shape.
        EngineError: no convergence, or products that are not finite numbers.
    """
    if not isinstance(structure, Structure):
        raise RequestError(f"expected a hesse.Structure, got {type(structure).__name__}; of ASE atoms: hesse.from_ase")
    n = len(structure)
    weights, atom_masses = _mass_weights(structure, masses)
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise RequestError(f"the tolerance must be a positive number, got {tolerance}")
    if max_products is not None and max_products < 1:
        raise RequestError(f"max_products must be at least 1, got {max_products}")
    rigid = rigid_body_basis(structure, np.ones(n) if atom_masses is None else atom_masses).reshape(-1, 3 * n).T
    if not isinstance(count, int) or not 1 <= count <= 3 * n - rigid.shape[1]:
        raise RequestError(
            f'structure "{structure.id}" has {3 * n - rigid.shape[1]} modes without rigid motions, {count} were asked'
        )
    subspace = _Subspace(_weighted_matvec(operator, structure, weights), rigid)
    solve = model_hessian_preconditioner(structure, weights, DIAGONAL_SHIFT) if preconditioned else None
    limit = max(3 * n, 300) if max_products is None else max_products
    block = _initial_block(structure, start, count, weights, subspace, solve, seed)
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
            # A space that cannot grow is the whole space: its eigenpairs are those of the Hessian.
            exhausted = n_added == 0 or (converged and len(values) == count)
            if extra > EXTRA_ITERATIONS or exhausted or subspace.n_products >= limit:
                break
            correction = residuals[:, [count] if converged else unconverged]
            block = correction if solve is None else solve(correction)
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
    """Orthonormal vectors free of rigid motions, what the operator makes of them, and its eigenpairs among them."""

    def __init__(self, operator: Callable[[Float[Array, "d m"]], Float[Array, "d m"]], rigid: Float[Array, "d r"]):
        self.operator, self.rigid = operator, rigid
        self.vectors = self.hessian_products = np.zeros((len(rigid), 0))
        self.n_products = 0

    def expand(self, block: Float[Array, "d m"]) -> int:
        """Add directions; those that the space holds already are left out. Returns how many were new."""
        new = self._orthonormalize(block)
        if new.shape[1]:
            hessian_products = self._project(self.operator(new))
            self.n_products += new.shape[1]
            self.vectors = np.concatenate([self.vectors, new], axis=1)
            self.hessian_products = np.concatenate([self.hessian_products, hessian_products], axis=1)
        return new.shape[1]

    def ritz_pairs(self, count: int) -> tuple[Float[Array, "m"], Float[Array, "d m"], Float[Array, "d m"]]:
        """The lowest eigenvalues within the space, their vectors, and what is missing to eigenvectors of the whole."""
        values, rotation = self._rayleigh_ritz(count)
        vectors = self.vectors @ rotation
        return values, vectors, self.hessian_products @ rotation - vectors * values

    def thick_restart(self, max_vectors: int, n_kept: int) -> None:
        """Once there are more than `most` vectors, keep the space of the `kept` lowest eigenvectors."""
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
        """What of `wanted` is orthogonal to the rigid motions and to the space, as orthonormal vectors."""
        new = block / np.linalg.norm(block, axis=0).clip(min=np.finfo(float).tiny)
        for _ in range(3):  # once is not enough where little is left
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
    solve: Callable[[Float[Array, "3n m"]], Float[Array, "3n m"]] | None,
    seed: int,
) -> Float[Array, "3n m"]:
    """The given directions and random ones; the latter are soft motions of the springs where there are springs."""
    n = len(structure)
    directions = np.zeros((0, n, 3)) if start is None else np.asarray(start, dtype=np.float64)
    if directions.shape[-2:] != (n, 3) or directions.ndim not in (2, 3) or not np.isfinite(directions).all():
        raise LabelShapeError(f"expected finite directions of shape {(n, 3)} or (k, {n}, 3), got {directions.shape}")
    directions = directions.reshape(-1, 3 * n).T / weights[:, None]
    rng = np.random.default_rng(seed)
    # One random direction always: a symmetric start would never leave its symmetry.
    random = rng.normal(size=(3 * n, max(count + 1 - directions.shape[1], 1)))
    if solve is not None:
        for _ in range(3):
            random = np.linalg.qr(subspace._project(solve(random)))[0]
    return np.concatenate([directions, random], axis=1)


def _mass_weights(
    structure: Structure, masses: ArrayLike | bool
) -> tuple[Float[Array, "3n"], Float[Array, "n"] | None]:
    """1/√mass of every coordinate (ones without masses), and the masses."""
    n = len(structure)
    if masses is False:
        return np.ones(3 * n), None
    atom_masses = np.asarray(atomic_masses[structure.numbers] if masses is True else masses, dtype=np.float64)
    if atom_masses.shape != (n,) or not (np.isfinite(atom_masses).all() and (atom_masses > 0).all()):
        raise RequestError(f'structure "{structure.id}": expected {n} positive masses in u, got {atom_masses}')
    return np.repeat(1.0 / np.sqrt(atom_masses), 3), atom_masses


def _weighted_matvec(
    source: Potential | SupportsCompute | HessianMatvec, structure: Structure, weights: Float[Array, "3n"]
) -> Callable[[Float[Array, "3n m"]], Float[Array, "3n m"]]:
    """Columns of (weighted) directions to columns of (weighted) products."""
    matvec = _matvec(source, structure)
    n = len(structure)

    def apply(columns: Float[Array, "3n m"]) -> Float[Array, "3n m"]:
        directions = (weights[:, None] * columns).T.reshape(-1, n, 3)
        products = np.asarray(matvec(directions), dtype=np.float64)
        if products.shape != directions.shape:
            raise LabelShapeError(f"products of shape {products.shape} came for directions {directions.shape}")
        if not np.isfinite(products).all():
            raise EngineError(f'structure "{structure.id}": a Hessian-vector product is not a finite number')
        return weights[:, None] * products.reshape(-1, 3 * n).T

    return apply


def _matvec(source: Potential | SupportsCompute | HessianMatvec, structure: Structure) -> HessianMatvec:
    if isinstance(source, Potential):
        dtype, device = dtype_and_device(source)
        hessian_operator = HessianOperator(source, structure)

        def by_potential(directions: Float[Array, "k n 3"]) -> Float[Array, "k n 3"]:
            products = hessian_operator(torch.as_tensor(directions, dtype=dtype, device=device))
            return products.to("cpu", torch.float64).numpy()

        return by_potential
    if isinstance(source, SupportsCompute):
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
