"""How far a structure has moved: distance after superposition, and bonds that formed or broke; whether two structures
have the same atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import RequestError
from hesse.structures import (
    BOND_FACTOR,
    Structure,
    chemical_formula,
    find_neighbors,
    is_bead,
    species_name,
    species_radii,
)

__all__ = [
    "Displacement",
    "atom_name",
    "bond_name",
    "check_same_atoms",
    "collision_text",
    "displacement",
    "rotation_onto",
    "superposed",
]

_MAX_NAMED = 6
"""Largest number of atoms that an error message names."""

_MIN_CHANGE = 0.1
"""Least change of a bond length, as a fraction of the sum of covalent radii, of a bond that forms or breaks: lengths
near the limit do not count."""

_Bond = tuple[int, int, tuple[int, int, int]]


@dataclass(frozen=True)
class Displacement:
    """The difference between two geometries of the same atoms.

    Attributes:
        rmsd: Å, root mean square of the displacements of atoms; molecules are superposed before, atoms of crystals are
            taken at their nearest images.
        largest: Å, of one atom.
        formed: pairs of atoms (indices from 0) that are bonded in the second geometry only.
        broken: pairs of atoms that are bonded in the first geometry only.
    """

    rmsd: float
    largest: float
    formed: tuple[tuple[int, int], ...]
    broken: tuple[tuple[int, int], ...]

    def is_below(self, distance: float) -> bool:
        """Whether two geometries are the same within a distance. One atom of hundreds that has moved hardly changes the
        mean.

        Args:
            distance: Å.

        Returns:
            True if the root mean square is below `distance`, and no atom has moved by five times as much.
        """
        return self.rmsd < distance and self.largest < 5.0 * distance


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
            f'structures "{first.id}" and "{second.id}" do not have the same atoms in the same order '
            f"({_difference_of_atoms(first, second)}): they cannot be compared atom by atom"
        )
    before, after = _contacts(first), _contacts(second)
    formed = {bond[:2] for bond, ratio in after.items() if _formed(before.get(bond), ratio)}
    broken = {bond[:2] for bond, ratio in before.items() if _formed(after.get(bond), ratio)}
    lengths = np.linalg.norm(_differences(first, second), axis=1)
    rmsd, largest = float(np.sqrt((lengths**2).mean())), float(lengths.max(initial=0.0))
    return Displacement(rmsd, largest, tuple(sorted(formed)), tuple(sorted(broken)))


def check_same_atoms(reactant: Structure, product: Structure) -> None:
    """Check that a path can lead from one structure to another: the same atoms in the same order, and the same cell,
    charge and multiplicity.

    Args:
        reactant: the first structure.
        product: the second structure.

    Raises:
        RequestError: they differ; the message says in what, and names the atoms.
    """
    pair = f'reactant "{reactant.id}" and product "{product.id}"'
    if not np.array_equal(reactant.numbers, product.numbers):
        raise RequestError(
            f"{pair} need the same elements in the same order, but {_difference_of_atoms(reactant, product)}. Atom k "
            "of one becomes atom k of the other: reorder the atoms of one file"
        )
    for name, first, second in (
        ("charges", reactant.charge, product.charge),
        ("multiplicities", reactant.multiplicity, product.multiplicity),
        ("periodic directions", reactant.pbc, product.pbc),
    ):
        if first != second:
            raise RequestError(f"{pair} have different {name}: {first} and {second}. A path needs the same on both")
    if not np.allclose(reactant.cell, product.cell, atol=1e-6) and reactant.periodic:
        raise RequestError(
            f"{pair} have different cells. A path needs the same cell: relax one in the cell of the other"
        )


def _difference_of_atoms(first: Structure, second: Structure) -> str:
    """Describe what differs in the elements of two structures, in words."""
    formulas = [chemical_formula(s.numbers) for s in (first, second)]
    if formulas[0] != formulas[1]:
        return f"they are {formulas[0]} and {formulas[1]}"
    names = [
        f"atom {i} is {species_name(first.numbers[i])} and {species_name(second.numbers[i])}"
        for i in np.flatnonzero(first.numbers != second.numbers)
    ]
    return ", ".join(names[:_MAX_NAMED]) + (f", and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")


def superposed(moving: Structure, fixed: Structure) -> Structure:
    """Move a structure onto another one of the same atoms, as closely as a rigid motion can.

    Molecules are shifted and rotated (never mirrored). In periodic structures each atom goes to its image nearest to
    that of the other structure.

    Args:
        moving: the structure to move.
        fixed: the other structure.

    Returns:
        The moved structure, with the same id.
    """
    if moving.periodic:
        from ase.geometry import find_mic

        vectors, _ = find_mic(moving.positions - fixed.positions, moving.cell, moving.pbc)
        return moving.with_positions(fixed.positions + vectors, id=moving.id)
    a, center = moving.positions - moving.positions.mean(axis=0), fixed.positions.mean(axis=0)
    return moving.with_positions(a @ rotation_onto(moving, fixed) + center, id=moving.id)


def rotation_onto(moving: Structure, fixed: Structure) -> Float[Array, "3 3"]:
    """The rotation by which `superposed` turns a molecule.

    Args:
        moving: the molecule to turn.
        fixed: the other structure.

    Returns:
        A matrix R; vectors of the moving molecule become `v @ R`.
    """
    a, b = (s.positions - s.positions.mean(axis=0) for s in (moving, fixed))
    return _rotation(a, b)


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
        Its element and index, such as "H5"; of a bead "C1(5)", since names of beads may end with a digit.
    """
    number = int(structure.numbers[index])
    return f"{species_name(number)}({index})" if is_bead(number) else f"{species_name(number)}{index}"


def collision_text(structure: Structure, contact: tuple[float, int, int]) -> str:
    """Describe a collision.

    Args:
        structure: the structure.
        contact: distance (Å) and indices of two atoms or beads, see `hesse.structures.closest_collision`.

    Returns:
        Such as "atoms 3 and 7 collide (0.42 Å apart)".
    """
    distance, i, j = contact
    if is_bead(structure.numbers[[i, j]]).all():
        return f"beads {atom_name(structure, i)} and {atom_name(structure, j)} collide ({distance:.2f} Å apart)"
    return f"atoms {i} and {j} collide ({distance:.2f} Å apart)"


def _differences(first: Structure, second: Structure) -> Float[Array, "n 3"]:
    """Displacements of the atoms, Å, without that of all together."""
    if first.periodic:
        moved = second.positions - first.positions
        lattice = first.cell[list(first.pbc)]
        moved = moved - moved[:1]  # of the first atom: a common shift must not send atoms to other images
        moved = moved - np.round(moved @ np.linalg.pinv(lattice)) @ lattice
        return moved - moved.mean(axis=0)
    a = first.positions - first.positions.mean(axis=0)
    b = second.positions - second.positions.mean(axis=0)
    return b - a @ _rotation(a, b)


def _rotation(a: Float[Array, "n 3"], b: Float[Array, "n 3"]) -> Float[Array, "3 3"]:
    """The proper rotation R for which `a @ R` is closest to `b` (Kabsch, Acta Cryst. A 32, 922 (1976))."""
    left, _, right = np.linalg.svd(a.T @ b)
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    return left @ right


def _contacts(structure: Structure) -> dict[_Bond, float]:
    """Pairs of atoms near to a bond, periodic images included, with their distances over the sum of covalent radii.
    Beads have no bonds by distance."""
    radii, longest = species_radii(structure.numbers), BOND_FACTOR + _MIN_CHANGE
    pairs = find_neighbors(
        structure.positions, structure.cell, structure.pbc, float(2.0 * longest * radii.max()) + 1e-9
    )
    ratios = pairs.distances / (radii[pairs.centers] + radii[pairs.neighbors])
    near = (ratios < longest) & (pairs.centers <= pairs.neighbors)
    bead = is_bead(structure.numbers)
    near &= ~(bead[pairs.centers] & bead[pairs.neighbors])
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
