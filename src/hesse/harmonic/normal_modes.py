"""Normal modes of a Hessian, and thermal displacements along them, classical or quantum.

In mass-weighted coordinates `q = √m x`, a normal mode is an eigenvector of `M^-1/2 H M^-1/2` in the space orthogonal to
rigid-body motions, and its eigenvalue is ω². Rigid-body motions are removed before the diagonalization: a Hessian away
from a stationary point, or with noise, has exactly 3n−6 modes (3n−5 for linear molecules, 3n−3 for crystals).

Signs of eigenvectors and bases of degenerate eigenspaces follow a fixed convention. Otherwise they would depend on
rounding errors, and so would everything that starts along a mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, LabelShapeError, RequestError, check_choice
from hesse.harmonic.masses import MassesLike, atom_masses
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure, hessian_array, to_structure
from hesse.structures.rigid_body import rigid_body_modes
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM

__all__ = [
    "NormalModes",
    "internal_basis",
    "moving_atoms",
    "normal_modes",
    "rigid_body_basis",
    "thermal_displacements",
]

LINEAR_TOLERANCE = 1e-2
"""A molecule is linear if its extent perpendicular to the axis is below this fraction of its extent along it
(mass-weighted). Relaxed linear molecules are near 1e-4; the flattest bent ones, with one light atom beside a heavy
chain, near 0.05."""
DEGENERACY_TOLERANCE = 1e-8
"""Eigenvalues that differ by less than this fraction of the largest one are treated as degenerate."""
_FROZEN_TOLERANCE = 1e-6
"""A rigid-body motion leaves frozen atoms in their places if they take less than this part of its length."""


@dataclass(frozen=True, eq=False, repr=False)
class NormalModes(ShortRepr):
    """Normal modes in ascending order of their eigenvalues, rigid-body motions excluded.

    Attributes:
        frequencies: wavenumbers in cm⁻¹, negative for imaginary modes.
        vectors: eigenvectors, orthonormal in mass-weighted coordinates, dimensionless.
        masses: u.
        n_rigid: number of rigid-body motions removed (6; 5 for linear molecules, 3 for atoms and crystals; with frozen
            atoms those that leave them in their places, mostly none).
        atoms: indices of the atoms that move; None for all. The others have no displacement in any mode.
    """

    frequencies: Float[Array, "modes"]
    vectors: Float[Array, "modes n 3"]
    masses: Float[Array, "n"]
    n_rigid: int
    atoms: Int[Array, "m"] | None = None

    def __len__(self) -> int:
        return len(self.frequencies)

    @property
    def eigenvalues(self) -> Float[Array, "modes"]:
        """ω², eV/(Å² u); negative for imaginary modes."""
        omega = self.frequencies * INVERSE_CM / HBAR
        return np.sign(omega) * omega**2

    @property
    def cartesian(self) -> Float[Array, "modes n 3"]:
        """Cartesian displacements per unit of the mass-weighted normal coordinate, u^-1/2."""
        return self.vectors / np.sqrt(self.masses)[None, :, None]

    @property
    def unit_displacements(self) -> Float[Array, "modes n 3"]:
        """Cartesian displacements, each of length 1, dimensionless."""
        cartesian = self.cartesian
        norms: Float[Array, "modes"] = np.linalg.norm(cartesian.reshape(len(self), 3 * len(self.masses)), axis=1)
        return cartesian / norms[:, None, None]

    @property
    def reduced_masses(self) -> Float[Array, "modes"]:
        """u; masses that belong to `unit_displacements`, as programs print them."""
        norms: Float[Array, "modes"] = np.square(self.cartesian).sum((1, 2))
        return 1.0 / norms

    @property
    def zero_point_energy(self) -> float:
        """Half the sum of the real frequencies, eV. Imaginary modes do not contribute."""
        return float(0.5 * INVERSE_CM * self.frequencies[self.frequencies > 0].sum())

    @property
    def n_imaginary(self) -> int:
        """Number of imaginary modes: 0 at a minimum, 1 at a transition state."""
        return int((self.frequencies < 0).sum())


def rigid_body_basis(
    structure: Structure, masses: Float[Array, "n"], *, linear_tolerance: float = LINEAR_TOLERANCE
) -> Float[Array, "motions n 3"]:
    """Orthonormal basis of the rigid-body motions in mass-weighted coordinates.

    These are three translations, and rotations about the center of mass (three; two for linear molecules, none for
    periodic structures).

    Args:
        structure: any structure.
        masses: u, `[n]`.
        linear_tolerance: see `LINEAR_TOLERANCE`.

    Returns:
        The basis, `[motions, n, 3]`.
    """
    modes = rigid_body_modes(
        torch.tensor(structure.positions),
        torch.tensor([len(structure)]),
        torch.tensor([structure.periodic]),
        masses=torch.tensor(masses),
        linear_tolerance=linear_tolerance,
    )
    return modes.motions[modes.present[:, 0]].numpy()


def internal_basis(
    structure: Structure, masses: Float[Array, "n"], *, linear_tolerance: float = LINEAR_TOLERANCE
) -> Float[Array, "modes 3n"]:
    """Orthonormal basis of the internal space: all displacements orthogonal to the rigid-body motions.

    Only the space is well defined; the basis itself depends on rounding.

    Args:
        structure: any structure.
        masses: u, `[n]`, for mass-weighted coordinates; ones for Cartesian coordinates.
        linear_tolerance: see `LINEAR_TOLERANCE`.

    Returns:
        The basis as rows, `[modes, 3n]`.
    """
    rigid = rigid_body_basis(structure, masses, linear_tolerance=linear_tolerance).reshape(-1, 3 * len(structure))
    # The last right-singular vectors span the orthogonal complement.
    return np.linalg.svd(rigid)[2][len(rigid) :]


def normal_modes(
    structure: Structure | Atoms,
    hessian: ArrayLike,
    *,
    masses: MassesLike = None,
    gradient: ArrayLike | None = None,
    atoms: ArrayLike | None = None,
    linear_tolerance: float = LINEAR_TOLERANCE,
) -> NormalModes:
    """Compute the normal modes of a structure from its Hessian.

    Args:
        structure: the geometry, a Structure or ASE Atoms.
        hessian: eV/Å², `(n, 3, n, 3)`, or that of the m atoms that move, `(m, 3, m, 3)`; it is symmetrized.
        masses: u, `[n]`, or "principal" for those of the most abundant isotopes, as in most programs; ASE's standard
            atomic weights by default. Frequencies differ by up to some cm⁻¹.
        gradient: eV/Å, `[n, 3]`, of a point on a reaction path, in any length. If given, the direction of the path is
            projected out as well (one mode less): projected frequencies after Miller, Handy, Adams, J. Chem. Phys. 72,
            99 (1980).
        atoms: indices of the atoms that move, all others being frozen (adsorbates, active sites); all by default. With
            frozen atoms only rigid-body motions that leave them in their places are removed.
        linear_tolerance: see `LINEAR_TOLERANCE`.

    Returns:
        Frequencies and eigenvectors.

    Raises:
        LabelShapeError: a Hessian or gradient of a wrong shape.
        LabelValueError: a Hessian that is not finite.
        RequestError: masses of a wrong number or not positive; a gradient of zero length; atoms that do not exist.
    """
    structure = to_structure(structure)
    n, moving = len(structure), moving_atoms(structure, atoms)
    free = np.arange(n) if moving is None else moving
    blocks = _block_of_atoms(structure, hessian, moving)
    m = atom_masses(structure, masses)
    weights = np.repeat(1.0 / np.sqrt(m[free]), 3)
    matrix = blocks.reshape(3 * len(free), -1) * np.outer(weights, weights)
    if moving is None:
        internal = internal_basis(structure, m, linear_tolerance=linear_tolerance)
    else:
        internal = _internal_basis_of_part(structure, m, moving, linear_tolerance)
    n_rigid = 3 * len(free) - len(internal)
    if gradient is not None:
        flat = _gradient_array(structure, gradient)[free].reshape(-1)
        internal = _project_out_gradient(structure, flat, weights, internal)
    values, vectors = np.linalg.eigh(internal @ (0.5 * (matrix + matrix.T)) @ internal.T)
    frequencies = np.sign(values) * np.sqrt(np.abs(values)) * HBAR / INVERSE_CM
    rows = np.zeros((len(values), n, 3))
    rows[:, free] = _canonical_vectors(values, vectors.T @ internal).reshape(-1, len(free), 3)
    return NormalModes(frequencies, rows, m, n_rigid, moving)


def moving_atoms(structure: Structure, atoms: ArrayLike | None) -> Int[Array, "m"] | None:
    """The atoms that move in vibrations of a part of a structure.

    Args:
        structure: the structure.
        atoms: their indices, from 0, in any order; None for all.

    Returns:
        The indices in ascending order; None if these are all atoms.

    Raises:
        RequestError: no atoms, atoms that do not exist, or something other than indices.
    """
    if atoms is None:
        return None
    n = len(structure)
    indices = np.asarray(atoms)
    if indices.dtype == bool and indices.shape == (n,):
        indices = np.flatnonzero(indices)
    if indices.ndim != 1 or len(indices) == 0 or indices.dtype.kind not in "iu":
        raise RequestError(
            f'structure "{structure.id}": expected the indices of the atoms that move, at least one, got {atoms!r}'
        )
    if indices.min() < 0 or indices.max() >= n:
        wrong = indices[(indices < 0) | (indices >= n)][0]
        raise RequestError(f'structure "{structure.id}": there is no atom {wrong}; its atoms are 0 to {n - 1}')
    unique: Int[Array, "m"] = np.unique(indices).astype(np.int64)
    return None if len(unique) == n else unique


def _block_of_atoms(
    structure: Structure, hessian: ArrayLike, moving: Int[Array, "m"] | None
) -> Float[Array, "m 3 m 3"]:
    """The Hessian of the moving atoms, from that or from the one of all atoms."""
    if moving is None:
        return hessian_array(structure, hessian)
    if np.shape(hessian)[:1] == (len(structure),):
        return hessian_array(structure, hessian)[moving][:, :, moving]
    part = Structure(structure.numbers[moving], structure.positions[moving], id=structure.id)
    return hessian_array(part, hessian)


def _internal_basis_of_part(
    structure: Structure, masses: Float[Array, "n"], moving: Int[Array, "m"], linear_tolerance: float
) -> Float[Array, "modes 3m"]:
    """Orthonormal basis of the displacements of the moving atoms, without the rigid-body motions of the whole structure
    that leave the frozen atoms where they are (rotations about one frozen atom, or about the axis through two)."""
    n, frozen = len(structure), np.setdiff1d(np.arange(len(structure)), moving)
    motions = rigid_body_basis(structure, np.ones(n), linear_tolerance=linear_tolerance)
    _, sizes, combinations = np.linalg.svd(motions[:, frozen].reshape(len(motions), -1).T)
    sizes = np.pad(sizes, (0, len(motions) - len(sizes)))
    allowed = np.einsum("km,max->kax", combinations[sizes < _FROZEN_TOLERANCE], motions[:, moving])
    if len(allowed) == 0:
        return np.eye(3 * len(moving))
    rigid = (allowed * np.sqrt(masses[moving])[:, None]).reshape(len(allowed), -1)
    basis: Float[Array, "modes 3m"] = np.linalg.svd(rigid)[2][len(rigid) :]
    return basis


def _canonical_vectors(values: Float[Array, "modes"], rows: Float[Array, "modes 3n"]) -> Float[Array, "modes 3n"]:
    """Eigenvectors with fixed signs, and fixed bases of degenerate eigenspaces.

    Fixed generic reference vectors are projected on each eigenspace and orthonormalized in order. For a single
    eigenvector this chooses the sign with a positive overlap.
    """
    if len(values) == 0:
        return rows
    tolerance = DEGENERACY_TOLERANCE * np.abs(values).max()
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > tolerance)
    sizes = np.diff(np.append(starts, len(values)))
    references = np.random.Generator(np.random.PCG64(0)).uniform(-1.0, 1.0, size=(int(sizes.max()), rows.shape[1]))
    result = rows * np.where(rows @ references[0] < 0, -1.0, 1.0)[:, None]
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        space = rows[start : start + size]
        rotation, triangle = np.linalg.qr(space @ references[:size].T)
        result[start : start + size] = (rotation * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)).T @ space
    return result


def _gradient_array(structure: Structure, gradient: ArrayLike) -> Float[Array, "n 3"]:
    try:
        flat = np.asarray(gradient, dtype=np.float64)
    except (TypeError, ValueError):
        raise LabelShapeError(
            f'structure "{structure.id}": expected a gradient [atoms, 3], got {type(gradient).__name__}'
        ) from None
    if flat.shape != (len(structure), 3):
        raise LabelShapeError(
            f'structure "{structure.id}": gradient of shape {flat.shape}, expected {(len(structure), 3)}'
        )
    return flat


def _project_out_gradient(
    structure: Structure,
    gradient: Float[Array, "3n"],
    weights: Float[Array, "3n"],
    internal: Float[Array, "modes 3n"],
) -> Float[Array, "fewer 3n"]:
    """Basis of the space spanned by `internal` without the direction of the gradient in mass-weighted coordinates."""
    along = internal @ (weights * gradient)
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
    statistics: Literal["classical", "quantum"] = "classical",
) -> Float[Array, "count n 3"]:
    """Draw Cartesian displacements from the thermal distribution of the harmonic potential.

    Normal coordinates are independent with variance `kT/ω²`, that is `½ kT` of potential energy per mode; with quantum
    statistics `ħ/(2ω) coth(ħω/2kT)`, the thermal density of the quantum oscillator, which has the zero-point motion at
    0 K (Landau and Lifshitz, Statistical Physics, Part 1, § 30) and the classical limit for ħω well below kT. Random
    numbers are drawn for the 3n mass-weighted coordinates and projected on the modes. The result is therefore a
    continuous function of the Hessian: it does not depend on signs of eigenvectors or on bases of degenerate modes.

    Args:
        modes: normal modes of the structure.
        temperature: K.
        rng: random number generator.
        count: number of displacements.
        min_frequency: cm⁻¹. Softer modes are sampled as if they had this frequency: along the straight line of a normal
            coordinate, the harmonic potential of a hindered rotation would allow much larger displacements than the
            real one.
        imaginary: "floor" samples an imaginary mode like a real one of the same magnitude (at least `min_frequency`),
            so that both sides of a saddle point are visited; "freeze" leaves it out.
        statistics: "classical" or "quantum".

    Returns:
        Displacements in Å, `[count, n, 3]`.

    Raises:
        ConfigError: a temperature or minimum frequency that is not positive (with quantum statistics the temperature
            may be zero), an unknown treatment of imaginary modes or unknown statistics.
    """
    check_choice(statistics, ("classical", "quantum"), "statistics")
    if not (np.isfinite(temperature) and (temperature > 0 or (temperature == 0 and statistics == "quantum"))):
        raise ConfigError(
            f"the temperature must be a positive number of K, or zero with quantum statistics, got {temperature}"
        )
    if not (np.isfinite(min_frequency) and min_frequency > 0):
        raise ConfigError(f"the minimum frequency must be a positive number of cm⁻¹, got {min_frequency}")
    check_choice(imaginary, ("floor", "freeze"), "treatment of imaginary modes")
    omega = np.maximum(np.abs(modes.frequencies), min_frequency) * INVERSE_CM / HBAR
    if statistics == "quantum":
        kt = max(BOLTZMANN * temperature, 1e-12)  # at 0 K the hyperbolic cotangent is one
        sigma = np.sqrt(0.5 * HBAR / omega / np.tanh(np.minimum(0.5 * HBAR * omega / kt, 50.0)))
    else:
        sigma = np.sqrt(BOLTZMANN * temperature) / omega
    if imaginary == "freeze":
        sigma = np.where(modes.frequencies < 0, 0.0, sigma)
    mass_weighted = rng.normal(size=(count, 3 * len(modes.masses)))
    coordinates = (mass_weighted @ modes.vectors.reshape(len(modes), -1).T) * sigma
    return np.einsum("ck,kax->cax", coordinates, modes.cartesian)
