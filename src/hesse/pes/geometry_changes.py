"""How far a structure has moved: distance after superposition, and bonds that formed or broke."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import RequestError
from hesse.structures import BOND_FACTOR, Structure, find_neighbors

__all__ = ["Displacement", "atom_name", "bond_name", "displacement"]

_MIN_CHANGE = 0.1
"""Least change of a bond length, as a fraction of the sum of covalent radii, of a bond that forms or breaks: lengths
near the limit do not count."""

_Bond = tuple[int, int, tuple[int, int, int]]


@dataclass(frozen=True)
class Displacement:
    """The difference between two geometries of the same atoms.

    Attributes:
        rmsd: Å, root mean square of the displacements of atoms; molecules are superposed before.
        formed: pairs of atoms (indices from 0) that are bonded in the second geometry only.
        broken: pairs of atoms that are bonded in the first geometry only.
    """

    rmsd: float
    formed: tuple[tuple[int, int], ...]
    broken: tuple[tuple[int, int], ...]


def displacement(first: Structure, second: Structure) -> Displacement:
    """Compare two geometries of the same atoms, in the same order.

    Args:
        first: the first geometry.
        second: the second geometry.

    Returns:
        Their distance, and the bonds that changed: atoms closer than 1.3 sums of covalent radii are bonded.

    Raises:
        RequestError: the structures have other atoms.
    """
    if not np.array_equal(first.numbers, second.numbers):
        raise RequestError(
            f'structures "{first.id}" and "{second.id}" do not have the same atoms in the same order: they cannot be '
            "compared atom by atom"
        )
    before, after = _contacts(first), _contacts(second)
    formed = {bond[:2] for bond, ratio in after.items() if _formed(before.get(bond), ratio)}
    broken = {bond[:2] for bond, ratio in before.items() if _formed(after.get(bond), ratio)}
    return Displacement(_rmsd(first, second), tuple(sorted(formed)), tuple(sorted(broken)))


def bond_name(structure: Structure, bond: tuple[int, int]) -> str:
    """Name a bond.

    Args:
        structure: the structure.
        bond: indices of its atoms.

    Returns:
        Elements and indices (from 0) of the atoms, such as "C1-H5".
    """
    return "-".join(atom_name(structure, i) for i in bond)


def atom_name(structure: Structure, index: int) -> str:
    """Name an atom.

    Args:
        structure: the structure.
        index: index of the atom, from 0.

    Returns:
        Its element and index, such as "H5".
    """
    return f"{chemical_symbols[structure.numbers[index]]}{index}"


def _rmsd(first: Structure, second: Structure) -> float:
    """Root mean square displacement, Å."""
    a = first.positions - first.positions.mean(axis=0)
    b = second.positions - second.positions.mean(axis=0)
    if not first.periodic:
        a = a @ _rotation(a, b)
    return float(np.sqrt(((a - b) ** 2).sum(axis=1).mean()))


def _rotation(a: Float[Array, "n 3"], b: Float[Array, "n 3"]) -> Float[Array, "3 3"]:
    """The proper rotation R for which `a @ R` is closest to `b` (Kabsch, Acta Cryst. A 32, 922 (1976))."""
    left, _, right = np.linalg.svd(a.T @ b)
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    return left @ right


def _contacts(structure: Structure) -> dict[_Bond, float]:
    """Pairs of atoms near to a bond, periodic images included, with their distances over the sum of covalent radii."""
    radii, longest = covalent_radii[structure.numbers], BOND_FACTOR + _MIN_CHANGE
    pairs = find_neighbors(
        structure.positions, structure.cell, structure.pbc, float(2.0 * longest * radii.max()) + 1e-9
    )
    ratios = pairs.distances / (radii[pairs.centers] + radii[pairs.neighbors])
    near = (ratios < longest) & (pairs.centers <= pairs.neighbors)
    return {
        (int(i), int(j), (int(s[0]), int(s[1]), int(s[2]))): float(ratio)
        for i, j, s, ratio in zip(
            pairs.centers[near], pairs.neighbors[near], pairs.cell_shifts[near], ratios[near], strict=True
        )
    }


def _formed(before: float | None, after: float) -> bool:
    """Whether a pair that is at `after` has a bond that it did not have before; None is far apart."""
    if after >= BOND_FACTOR or (before is not None and before < BOND_FACTOR):
        return False
    return before is None or before - after > _MIN_CHANGE
