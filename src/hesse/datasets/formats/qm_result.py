"""Result of a quantum-chemistry program for one geometry, in atomic units, and its conversion to eV and Å."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.errors import FileFormatError, InconsistentLabelsError
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Properties, Structure
from hesse.units import ENERGY_UNITS, LENGTH_UNITS

__all__ = ["QMResult", "symmetric_from_lower"]

_FREQUENCY_TOLERANCE: Final = 0.03
"""Relative difference allowed between printed frequencies and those of the Hessian with average masses."""


@dataclass(frozen=True, eq=False, kw_only=True)
class QMResult:
    """One geometry of one output file, with what was computed for it.

    Attributes:
        numbers: atomic numbers.
        positions: Å, in the orientation of gradient and Hessian.
        charge: total charge in units of e.
        multiplicity: spin multiplicity 2S + 1.
        energy: Hartree.
        gradient: dE/dx in Hartree/Bohr (minus the forces).
        hessian: Hartree/Bohr², not mass-weighted.
        frequencies: as printed, cm⁻¹, imaginary ones negative; rigid-body motions may be included as zeros.
        level: level of theory, as far as the output states it.
        masses: u, if the program used other ones than the standard atomic masses.
        unused: quantities in the file whose meaning is not certain enough to use them.
    """

    numbers: Int[Array, "n"]
    positions: Float[Array, "n 3"]
    charge: int = 0
    multiplicity: int = 1
    energy: float | None = None
    gradient: Float[Array, "n 3"] | None = None
    hessian: Float[Array, "3n 3n"] | None = None
    frequencies: Float[Array, "modes"] | None = None
    level: str = ""
    masses: Float[Array, "n"] | None = None
    unused: tuple[str, ...] = ()

    def to_labeled_structure(self, id: str) -> tuple[Structure, Properties]:
        """Convert to a structure and its labels in the units used inside Hesse.

        Args:
            id: id of the structure, also its group.

        Returns:
            The structure in Å, and its labels in eV, eV/Å and eV/Å².

        Raises:
            FileFormatError: the Hessian has another size than the molecule.
            GeometryError, LabelShapeError: arrays that do not fit each other.
            InconsistentLabelsError: the Hessian gives other frequencies than the program printed.
        """
        structure = Structure(
            self.numbers,
            self.positions,
            id=id,
            charge=self.charge,
            multiplicity=self.multiplicity,
            group=id,
            masses=self.masses,
        )
        n = len(structure)
        e, a = ENERGY_UNITS["hartree"], LENGTH_UNITS["bohr"]
        hessian = None
        if self.hessian is not None:
            if self.hessian.shape != (3 * n, 3 * n):
                raise FileFormatError(f'"{id}": a Hessian of shape {self.hessian.shape} for {n} atoms')
            hessian = (self.hessian * (e / a**2)).reshape(n, 3, n, 3)
            self._check_frequencies(structure, hessian)
        labels = Properties.single(
            n,
            energy=None if self.energy is None else self.energy * e,
            forces=None if self.gradient is None else -self.gradient * (e / a),
            hessian=hessian,
            structure_id=id,
        )
        return structure, labels

    def _check_frequencies(self, structure: Structure, hessian: Float[Array, "n 3 n 3"]) -> None:
        """Compare printed and computed frequencies, the higher half only: away from stationary points, low frequencies
        depend on how rotations were projected out."""
        if self.frequencies is None or len(structure) < 2 or not np.isfinite(hessian).all():
            return
        printed = np.sort(self.frequencies)[::-1]
        computed = normal_modes(structure, hessian).frequencies[::-1]
        n_compared = (min(len(printed), len(computed)) + 1) // 2
        differs = (
            np.abs(computed[:n_compared] - printed[:n_compared])
            > _FREQUENCY_TOLERANCE * np.abs(printed[:n_compared]) + 1.0
        )
        if differs.any():
            k = int(differs.argmax())
            raise InconsistentLabelsError(
                f'"{structure.id}": its Hessian has a frequency of {computed[k]:.1f} cm⁻¹ where the output prints '
                f"{printed[k]:.1f}: they belong to different calculations, the masses are unusual isotopes, or the "
                "file is damaged"
            )


def symmetric_from_lower(values: Float[Array, "elements"], n: int) -> Float[Array, "3n 3n"]:
    """Fill a symmetric matrix from its lower triangle.

    Args:
        values: the triangle row by row, diagonal included.
        n: number of atoms.

    Returns:
        The full matrix `[3n, 3n]`.

    Raises:
        FileFormatError: the number of elements does not fit.
    """
    size = 3 * n
    if len(values) != size * (size + 1) // 2:
        raise FileFormatError(
            f"the lower triangle of a Hessian of {n} atoms has {size * (size + 1) // 2} elements, got {len(values)}"
        )
    matrix = np.zeros((size, size))
    rows, columns = np.tril_indices(size)
    matrix[rows, columns] = values
    matrix[columns, rows] = values
    return matrix
