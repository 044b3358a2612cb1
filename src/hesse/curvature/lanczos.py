"""The lowest eigenpairs of a Hessian from its products with vectors alone: soft modes of a minimum, the reaction mode
of a saddle point, for systems whose Hessian nobody wants to compute.

The method is Davidson's (J. Comput. Phys. 17, 87 (1975)) with blocks, thick restarts (Stathopoulos, Saad, Wu, SIAM J.
Sci. Comput. 19, 227 (1998)) and full reorthogonalisation: the space spanned so far grows by the residuals of its best
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

from hesse.curvature.home import home_of
from hesse.curvature.operator import HessianProducts
from hesse.curvature.springs import springs_solver
from hesse.errors import EngineError, LabelShapeError, RequestError
from hesse.harmonic import rigid_basis
from hesse.potential import Potential
from hesse.progress import track
from hesse.structures import Labels, Request, Structure
from hesse.units import HBAR, INVERSE_CM

__all__ = ["Answers", "LowestModes", "Multiply", "lowest_modes"]

Multiply = Callable[[Float[Array, "k n 3"]], Float[Array, "k n 3"]]
"""`v ↦ H v` in eV/Å², for several directions at once."""

SHIFT = 0.05
"""eV/Å² (or eV/(Å² u)): added to the springs. Anything from 0.02 to 0.5 does; below, floppy motions get too far."""
SECOND_LOOKS = 4
"""Products spent on the next eigenpair once all that were asked have converged: it may turn out to be a lower one."""
LARGEST_SPACE = 240
"""Vectors kept before the space is cut down to the best third."""


@runtime_checkable
class Answers(Protocol):
    """What every `hesse.engines.Engine` does."""

    def compute(self, structure: Structure, request: Request) -> Labels:
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
    products: int
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
    subject: Potential | Answers | Multiply,
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
    weights, used = _weights(structure, masses)
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise RequestError(f"the tolerance must be a positive number, got {tolerance}")
    if max_products is not None and max_products < 1:
        raise RequestError(f"max_products must be at least 1, got {max_products}")
    rigid = rigid_basis(structure, np.ones(n) if used is None else used).reshape(-1, 3 * n).T
    if not isinstance(count, int) or not 1 <= count <= 3 * n - rigid.shape[1]:
        raise RequestError(
            f'structure "{structure.id}" has {3 * n - rigid.shape[1]} modes without rigid motions, {count} were asked'
        )
    space = _Space(_operator(subject, structure, weights), rigid)
    solve = springs_solver(structure, weights, SHIFT) if preconditioned else None
    limit = max(3 * n, 300) if max_products is None else max_products
    wanted = _first_block(structure, start, count, weights, space, solve, seed)
    looks = 0
    with track("lowest modes", limit, quiet=quiet) as advance:
        while True:
            grown = space.grow(wanted[:, : limit - space.products])
            values, vectors, residuals = space.best(count + 1)
            lengths = np.linalg.norm(residuals, axis=0)
            advance(grown, note=f"largest residual {lengths[:count].max():.1e}")
            unfinished = np.flatnonzero(lengths[:count] > tolerance)
            settled = len(unfinished) == 0
            looks = looks + 1 if settled else 0
            # A space that cannot grow is the whole space: its eigenpairs are those of the Hessian.
            whole = grown == 0 or (settled and len(values) == count)
            if looks > SECOND_LOOKS or whole or space.products >= limit:
                break
            missing = residuals[:, [count] if settled else unfinished]
            wanted = missing if solve is None else solve(missing)
            space.restart_beyond(LARGEST_SPACE, 2 * count + LARGEST_SPACE // 3)
    values, vectors, lengths = values[:count], vectors[:, :count], lengths[:count]
    found = LowestModes(values, vectors.T.reshape(-1, n, 3), lengths, space.products, lengths <= tolerance, used)
    if strict and not (len(found) == count and found.converged.all()):
        raise EngineError(
            f'structure "{structure.id}": {int(found.converged.sum())} of {count} eigenpairs converged to '
            f"{tolerance:g} in {found.products} products (largest residual {lengths.max():.1e}, lowest eigenvalue "
            f"{values[0]:.4g}). "
            "Allow more (max_products) or a larger tolerance, take a potential in float64, or take them as they are "
            "(strict=False)."
        )
    return found


class _Space:
    """Orthonormal vectors free of rigid motions, what the operator makes of them, and its eigenpairs among them."""

    def __init__(self, operator: Callable[[Float[Array, "d m"]], Float[Array, "d m"]], rigid: Float[Array, "d r"]):
        self.operator, self.rigid = operator, rigid
        self.vectors = self.images = np.zeros((len(rigid), 0))
        self.products = 0

    def grow(self, wanted: Float[Array, "d m"]) -> int:
        """Add directions; those that the space holds already are left out. Returns how many were new."""
        new = self._new_directions(wanted)
        if new.shape[1]:
            images = self._internal(self.operator(new))
            self.products += new.shape[1]
            self.vectors = np.concatenate([self.vectors, new], axis=1)
            self.images = np.concatenate([self.images, images], axis=1)
        return new.shape[1]

    def best(self, count: int) -> tuple[Float[Array, "m"], Float[Array, "d m"], Float[Array, "d m"]]:
        """The lowest eigenvalues within the space, their vectors, and what is missing to eigenvectors of the whole."""
        values, rotation = self._eigen(count)
        vectors = self.vectors @ rotation
        return values, vectors, self.images @ rotation - vectors * values

    def restart_beyond(self, most: int, kept: int) -> None:
        """Once there are more than `most` vectors, keep the space of the `kept` lowest eigenvectors."""
        if self.vectors.shape[1] > most:
            rotation = self._eigen(kept)[1]
            self.vectors, self.images = self.vectors @ rotation, self.images @ rotation

    def _eigen(self, count: int) -> tuple[Float[Array, "m"], Float[Array, "k m"]]:
        projected = self.vectors.T @ self.images
        values, rotation = np.linalg.eigh(0.5 * (projected + projected.T))
        return values[:count], rotation[:, :count]

    def _internal(self, vectors: Float[Array, "d m"]) -> Float[Array, "d m"]:
        return vectors - self.rigid @ (self.rigid.T @ vectors)

    def _new_directions(self, wanted: Float[Array, "d m"]) -> Float[Array, "d m"]:
        """What of `wanted` is orthogonal to the rigid motions and to the space, as orthonormal vectors."""
        new = wanted / np.linalg.norm(wanted, axis=0).clip(min=np.finfo(float).tiny)
        for _ in range(3):  # once is not enough where little is left
            new = self._internal(new - self.vectors @ (self.vectors.T @ new))
            left, sizes, _ = np.linalg.svd(new, full_matrices=False)
            new = left[:, sizes > 1e-8]
        return new


def _first_block(
    structure: Structure,
    start: ArrayLike | None,
    count: int,
    weights: Float[Array, "3n"],
    space: _Space,
    solve: Callable[[Float[Array, "3n m"]], Float[Array, "3n m"]] | None,
    seed: int,
) -> Float[Array, "3n m"]:
    """The given directions and random ones; the latter are soft motions of the springs where there are springs."""
    n = len(structure)
    given = np.zeros((0, n, 3)) if start is None else np.asarray(start, dtype=np.float64)
    if given.shape[-2:] != (n, 3) or given.ndim not in (2, 3) or not np.isfinite(given).all():
        raise LabelShapeError(f"expected finite directions of shape {(n, 3)} or (k, {n}, 3), got {given.shape}")
    given = given.reshape(-1, 3 * n).T / weights[:, None]
    rng = np.random.default_rng(seed)
    # One random direction always: a symmetric start would never leave its symmetry.
    random = rng.normal(size=(3 * n, max(count + 1 - given.shape[1], 1)))
    if solve is not None:
        for _ in range(3):
            random = np.linalg.qr(space._internal(solve(random)))[0]
    return np.concatenate([given, random], axis=1)


def _weights(structure: Structure, masses: ArrayLike | bool) -> tuple[Float[Array, "3n"], Float[Array, "n"] | None]:
    """1/√mass of every coordinate (ones without masses), and the masses."""
    n = len(structure)
    if masses is False:
        return np.ones(3 * n), None
    used = np.asarray(atomic_masses[structure.numbers] if masses is True else masses, dtype=np.float64)
    if used.shape != (n,) or not (np.isfinite(used).all() and (used > 0).all()):
        raise RequestError(f'structure "{structure.id}": expected {n} positive masses in u, got {used}')
    return np.repeat(1.0 / np.sqrt(used), 3), used


def _operator(
    subject: Potential | Answers | Multiply, structure: Structure, weights: Float[Array, "3n"]
) -> Callable[[Float[Array, "3n m"]], Float[Array, "3n m"]]:
    """Columns of (weighted) directions to columns of (weighted) products."""
    multiply = _multiply(subject, structure)
    n = len(structure)

    def operator(columns: Float[Array, "3n m"]) -> Float[Array, "3n m"]:
        directions = (weights[:, None] * columns).T.reshape(-1, n, 3)
        found = np.asarray(multiply(directions), dtype=np.float64)
        if found.shape != directions.shape:
            raise LabelShapeError(f"products of shape {found.shape} came for directions {directions.shape}")
        if not np.isfinite(found).all():
            raise EngineError(f'structure "{structure.id}": a Hessian-vector product is not a finite number')
        return weights[:, None] * found.reshape(-1, 3 * n).T

    return operator


def _multiply(subject: Potential | Answers | Multiply, structure: Structure) -> Multiply:
    if isinstance(subject, Potential):
        dtype, device = home_of(subject)
        kept = HessianProducts(subject, structure)

        def by_potential(directions: Float[Array, "k n 3"]) -> Float[Array, "k n 3"]:
            found = kept(torch.as_tensor(directions, dtype=dtype, device=device))
            return found.to("cpu", torch.float64).numpy()

        return by_potential
    if isinstance(subject, Answers):
        engine = subject

        def by_engine(directions: Float[Array, "k n 3"]) -> Float[Array, "k n 3"]:
            labels = engine.compute(structure, Request(energy=False, probes=torch.from_numpy(directions)))
            assert labels.hvp is not None
            return labels.hvp.numpy()

        return by_engine
    if callable(subject):
        return subject
    raise RequestError(
        f"expected a potential, an engine, or a function of directions [k, n, 3], got a {type(subject).__name__}"
    )
