"""The rotational symmetry number of a molecule: how many rotations carry it into itself.

A rotation is known from where it takes two atoms that are not on one line with the center of mass. All pairs that these
two can go to are tried, and every rotation found is fitted to all atoms.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.errors import ConfigError, RequestError, check_numbers
from hesse.harmonic.masses import MassesLike, atom_masses
from hesse.structures import Structure, to_structure

__all__ = ["SYMMETRY_TOLERANCE", "symmetry_number"]

SYMMETRY_TOLERANCE = 0.05
"""Å; largest distance of an atom from the place of the one it is taken to; about 0.01 after relaxation."""


def symmetry_number(
    structure: Structure | Atoms, *, masses: MassesLike = None, tolerance: float = SYMMETRY_TOLERANCE
) -> int:
    """Count the proper rotations that carry a molecule into itself.

    Args:
        structure: a molecule.
        masses: u, `[n]`, or a kind of masses, see `hesse.harmonic.masses.atom_masses`: isotopes are different atoms.
        tolerance: Å; largest distance of an atom from the place of the one it is taken to.

    Returns:
        The symmetry number of its rotational entropy: 2 for water, 3 for ammonia, 12 for methane and benzene; 1 for a
        single atom.

    Raises:
        RequestError: a periodic structure, which does not rotate, or wrong masses.
        ConfigError: a tolerance that is not a positive number.
    """
    structure = to_structure(structure)
    check_numbers(tolerance=tolerance)
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ConfigError(f"the tolerance of a symmetry must be a positive number of Å, got {tolerance}")
    if structure.periodic:
        raise RequestError(f'structure "{structure.id}" is periodic: it does not rotate and has no symmetry number')
    m = atom_masses(structure, masses)
    positions = structure.positions - m @ structure.positions / m.sum()
    kinds = np.unique(np.stack([structure.numbers, np.round(m, 3)], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    if np.linalg.norm(positions, axis=1).max() <= tolerance:
        return 1
    _, sizes, axes = np.linalg.svd(positions, full_matrices=False)
    if len(sizes) < 2 or np.abs(positions - np.outer(positions @ axes[0], axes[0])).max() <= tolerance:
        # A linear molecule: the only further rotation takes one end to the other.
        return 2 if _permutation(positions, -positions, kinds, tolerance) is not None else 1
    while True:
        rotations = _rotations(positions, kinds, tolerance)
        if _is_group(rotations):
            return len(rotations)
        tolerance /= 2.0  # near the limit some rotations pass and their products do not


def _rotations(positions: Float[Array, "n 3"], kinds: Int[Array, "n"], tolerance: float) -> set[tuple[int, ...]]:
    """The permutations of the atoms by all rotations that carry the molecule into itself."""
    radii = np.linalg.norm(positions, axis=1)
    first = _rarest(kinds, radii, radii > 2.0 * tolerance, tolerance)
    areas = np.linalg.norm(np.cross(positions[first], positions), axis=1) / radii[first]
    second = _rarest(kinds, radii, areas > 0.5 * areas.max(), tolerance)
    frame = _frame(positions[first], positions[second])
    length = np.linalg.norm(positions[first] - positions[second])
    rotations = set()
    for i in np.flatnonzero((kinds == kinds[first]) & (np.abs(radii - radii[first]) < 2 * tolerance)):
        distances = np.linalg.norm(positions - positions[i], axis=1)
        near = (kinds == kinds[second]) & (np.abs(radii - radii[second]) < 2 * tolerance)
        for j in np.flatnonzero(near & (np.abs(distances - length) < 2 * tolerance)):
            if j == i or np.linalg.norm(np.cross(positions[i], positions[j])) < 1e-9:
                continue
            rotation = _frame(positions[i], positions[j]).T @ frame
            # Two atoms fix the rotation only roughly: match loosely, fit all atoms, and compare then.
            rough = _permutation(positions, positions @ rotation.T, kinds, 6.0 * tolerance)
            if rough is None:
                continue
            fitted = _fit(positions, positions[rough])
            exact = _permutation(positions, positions @ fitted.T, kinds, tolerance)
            if exact is not None:
                rotations.add(tuple(exact.tolist()))
    return rotations


def _rarest(kinds: Int[Array, "n"], radii: Float[Array, "n"], allowed: Array, tolerance: float) -> int:
    """An allowed atom with the fewest others of the same kind and distance from the center."""
    same = (kinds[:, None] == kinds) & (np.abs(radii[:, None] - radii) < 2 * tolerance)
    return int(np.where(allowed, same.sum(1), len(kinds) + 1).argmin())


def _frame(first: Float[Array, "3"], second: Float[Array, "3"]) -> Float[Array, "3 3"]:
    x = first / np.linalg.norm(first)
    z = np.cross(first, second)
    z = z / np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z])


def _permutation(
    positions: Float[Array, "n 3"], moved: Float[Array, "n 3"], kinds: Int[Array, "n"], tolerance: float
) -> Int[Array, "n"] | None:
    """For each moved atom the atom of the same kind in whose place it is; None if one has none, or two have the
    same."""
    distances = np.linalg.norm(moved[:, None] - positions, axis=2)
    distances = np.where(kinds[:, None] == kinds, distances, np.inf)
    nearest: Int[Array, "n"] = distances.argmin(1)
    if distances[np.arange(len(kinds)), nearest].max() > tolerance or len(np.unique(nearest)) < len(kinds):
        return None
    return nearest


def _fit(positions: Float[Array, "n 3"], targets: Float[Array, "n 3"]) -> Float[Array, "3 3"]:
    """The proper rotation that brings the positions nearest to the targets (Kabsch)."""
    left, _, right = np.linalg.svd(targets.T @ positions)
    signs = np.array([1.0, 1.0, np.linalg.det(left @ right)])
    rotation: Float[Array, "3 3"] = (left * signs) @ right
    return rotation


def _is_group(permutations: set[tuple[int, ...]]) -> bool:
    """Whether the product of any two is among them."""
    return all(tuple(a[k] for k in b) in permutations for a in permutations for b in permutations)
