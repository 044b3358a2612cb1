"""Harmonic analysis: normal modes of a Hessian, and classical thermal displacements along them.

Everything is mass-weighted: with `q = √m x`, a mode is an eigenvector of `M^-1/2 H M^-1/2` in the space orthogonal to
rigid motions, and its eigenvalue is ω². Rigid motions are removed before the diagonalization, so that a Hessian taken
away from a stationary point (or with noise) has exactly 3n−6 modes, 3n−5 for a linear molecule, 3n−3 for a crystal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.data import atomic_masses
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, LabelShapeError, LabelValueError, RequestError, check_choice
from hesse.structures import Structure
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM

__all__ = ["NormalModes", "internal_basis", "normal_modes", "rigid_body_basis", "thermal_displacements"]

LINEAR_TOLERANCE = 1e-2
"""A molecule is linear when its extent across the axis is below this fraction of its extent along it (mass-weighted).
Relaxed linear molecules stay near 1e-4; the flattest bent ones, with one light atom off a heavy chain, near 0.05."""


@dataclass(frozen=True, eq=False)
class NormalModes:
    """Normal modes in order of their eigenvalue, rigid motions excluded.

    Attributes:
        frequencies: wavenumbers in cm⁻¹; imaginary ones are negative.
        vectors: orthonormal in mass-weighted coordinates, dimensionless.
        masses: u.
        n_rigid: how many rigid motions were removed (6, 5 linear, 3 atom or crystal).
    """

    frequencies: Float[Array, "modes"]
    vectors: Float[Array, "modes n 3"]
    masses: Float[Array, "n"]
    n_rigid: int

    def __len__(self) -> int:
        return len(self.frequencies)

    @property
    def eigenvalues(self) -> Float[Array, "modes"]:
        """ω², eV/(Å² u); negative for imaginary modes."""
        omega = self.frequencies * INVERSE_CM / HBAR
        return np.sign(omega) * omega**2

    @property
    def cartesian(self) -> Float[Array, "modes n 3"]:
        """Displacement of each atom per unit of the mass-weighted normal coordinate, u^-1/2."""
        return self.vectors / np.sqrt(self.masses)[None, :, None]

    @property
    def n_imaginary(self) -> int:
        """Number of imaginary modes: 0 at a minimum, 1 at a transition state."""
        return int((self.frequencies < 0).sum())


def rigid_body_basis(
    structure: Structure, masses: Float[Array, "n"], *, linear_tolerance: float = LINEAR_TOLERANCE
) -> Float[Array, "motions n 3"]:
    """Orthonormal basis of the rigid motions in mass-weighted coordinates: translations, and rotations about the center
    of mass (none for periodic structures). Its rank is found, not assumed."""
    weights = np.sqrt(masses)[:, None]
    n = len(structure)
    translations = np.eye(3)[:, None, :] * weights / np.sqrt(masses.sum())
    if structure.periodic or n == 1:
        return translations
    centered = structure.positions - masses @ structure.positions / masses.sum()
    rotations = np.cross(np.eye(3)[:, None, :], centered[None]) * weights
    # Rotations about the center of mass are orthogonal to translations; among themselves the SVD sorts them out.
    _, sizes, rows = np.linalg.svd(rotations.reshape(3, 3 * n), full_matrices=False)
    independent = sizes > linear_tolerance * max(sizes[0], np.finfo(float).tiny)
    return np.concatenate([translations, rows[independent].reshape(-1, n, 3)])


def internal_basis(
    structure: Structure, masses: Float[Array, "n"], *, linear_tolerance: float = LINEAR_TOLERANCE
) -> Float[Array, "modes 3n"]:
    """Orthonormal rows that span everything orthogonal to the rigid motions, in coordinates weighted by the square
    root of `masses` (ones: plain Cartesian coordinates)."""
    rigid = rigid_body_basis(structure, masses, linear_tolerance=linear_tolerance).reshape(-1, 3 * len(structure))
    # The last right-singular vectors are what the first ones leave.
    return np.linalg.svd(rigid)[2][len(rigid) :]


def normal_modes(
    structure: Structure,
    hessian: ArrayLike,
    *,
    masses: ArrayLike | None = None,
    gradient: ArrayLike | None = None,
    linear_tolerance: float = LINEAR_TOLERANCE,
) -> NormalModes:
    """Normal modes of `structure` with the Hessian `(n, 3, n, 3)` in eV/Å², symmetrized here.

    Args:
        gradient: eV/Å, `[n, 3]` (its size does not matter). Given, the modes are those orthogonal to the reaction path
            that runs along it, one fewer: the projected frequencies of a point that is not stationary (Miller, Handy,
            Adams, J. Chem. Phys. 72, 99 (1980)).
        masses: u, `[n]`; ASE's standard atomic weights by default. Programs that use the masses of the principal
            isotopes differ by up to some cm⁻¹.
        linear_tolerance: see `LINEAR_TOLERANCE`.

    Raises:
        LabelShapeError, LabelValueError: a Hessian of another shape, or with numbers that are not finite.
        RequestError: masses that do not fit or are not positive; a gradient of zero, which has no direction.
    """
    n = len(structure)
    blocks = np.asarray(hessian, dtype=np.float64)
    if blocks.shape != (n, 3, n, 3):
        raise LabelShapeError(f'structure "{structure.id}": Hessian of shape {blocks.shape}, expected {(n, 3, n, 3)}')
    if not np.isfinite(blocks).all():
        raise LabelValueError(f'structure "{structure.id}": its Hessian holds numbers that are not finite')
    m = np.asarray(atomic_masses[structure.numbers] if masses is None else masses, dtype=np.float64)
    if m.shape != (n,) or not (np.isfinite(m).all() and (m > 0).all()):
        raise RequestError(f'structure "{structure.id}": expected {n} positive masses in u, got {m}')
    weights = np.repeat(1.0 / np.sqrt(m), 3)
    matrix = blocks.reshape(3 * n, 3 * n) * np.outer(weights, weights)
    internal = internal_basis(structure, m, linear_tolerance=linear_tolerance)
    n_rigid = 3 * n - len(internal)
    if gradient is not None:
        internal = _project_out_gradient(structure, gradient, weights, internal)
    values, vectors = np.linalg.eigh(internal @ (0.5 * (matrix + matrix.T)) @ internal.T)
    frequencies = np.sign(values) * np.sqrt(np.abs(values)) * HBAR / INVERSE_CM
    return NormalModes(frequencies, (vectors.T @ internal).reshape(-1, n, 3), m, n_rigid)


def _project_out_gradient(
    structure: Structure, gradient: ArrayLike, weights: Float[Array, "3n"], internal: Float[Array, "modes 3n"]
) -> Float[Array, "fewer 3n"]:
    """What `internal` spans, less the direction of the gradient in mass-weighted coordinates."""
    flat = np.asarray(gradient, dtype=np.float64)
    if flat.shape != (len(structure), 3):
        raise LabelShapeError(
            f'structure "{structure.id}": gradient of shape {flat.shape}, expected {(len(structure), 3)}'
        )
    along = internal @ (weights * flat.reshape(-1))
    if not np.isfinite(along).all() or not np.linalg.norm(along) > 0:
        raise RequestError(
            f'structure "{structure.id}": its gradient is zero or not finite: there is no path direction to leave out'
        )
    return np.linalg.svd(along[None])[2][1:] @ internal


def thermal_displacements(
    modes: NormalModes,
    temperature: float,
    rng: np.random.Generator,
    *,
    count: int = 1,
    min_frequency: float = 150.0,
    imaginary: Literal["floor", "freeze"] = "floor",
) -> Float[Array, "count n 3"]:
    """Cartesian displacements (Å) from the classical Boltzmann distribution of the harmonic well: independent normal
    coordinates with variance `kT/ω²`, hence `½ kT` of potential energy per mode.

    Args:
        temperature: K.
        floor: cm⁻¹. Softer modes are sampled as if they had this frequency: the harmonic well of a hindered rotation
            would otherwise send atoms along straight lines much further than the real motion goes.
        imaginary: "floor" samples an imaginary mode like a real one of the same magnitude (at least `floor`), so that
            both sides of a saddle are visited; "freeze" leaves it out.

    Raises:
        ConfigError: a temperature or floor that is not positive, an unknown treatment of imaginary modes.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"the temperature must be a positive number of K, got {temperature}")
    if not (np.isfinite(min_frequency) and min_frequency > 0):
        raise ConfigError(f"the floor of frequencies must be a positive number of cm⁻¹, got {min_frequency}")
    check_choice(imaginary, ("floor", "freeze"), "treatment of imaginary modes")
    omega = np.maximum(np.abs(modes.frequencies), min_frequency) * INVERSE_CM / HBAR
    sigma = np.sqrt(BOLTZMANN * temperature) / omega
    if imaginary == "freeze":
        sigma = np.where(modes.frequencies < 0, 0.0, sigma)
    coordinates = rng.normal(size=(count, len(modes))) * sigma
    return np.einsum("ck,kax->cax", coordinates, modes.cartesian)
