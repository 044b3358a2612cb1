"""What an output of a quantum-chemistry program says of one geometry, in atomic units, and its way inside."""

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
"""Between printed frequencies and those of the Hessian with average masses: isotopes make less than this."""


@dataclass(frozen=True, eq=False, kw_only=True)
class QMResult:
    """One geometry of one output.

    Attributes:
        numbers: atomic numbers.
        positions: Å, in the frame of gradient and Hessian.
        energy: Hartree.
        gradient: Hartree/Bohr; plus the derivative of the energy.
        hessian: Hartree/Bohr², not mass-weighted.
        frequencies: as printed, cm⁻¹, imaginary ones negative; zeros may stand for rigid motions.
        level: of theory, as far as the output says.
        unread: what was there and is not known well enough to be used.
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
    unused: tuple[str, ...] = ()

    def to_labeled_structure(self, id: str) -> tuple[Structure, Properties]:
        """The structure and its labels in eV and Å.

        Raises:
            GeometryError, LabelShapeError: numbers that do not fit each other.
            IdentityError: a Hessian whose frequencies are not those the program printed.
        """
        structure = Structure(
            self.numbers, self.positions, id=id, charge=self.charge, multiplicity=self.multiplicity, group=id
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
        """The stiffer half only: soft modes depend on what was projected out, at geometries that are not relaxed."""
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
    """The symmetric matrix of `3n` rows whose lower triangle is given row by row.

    Raises:
        FileFormatError: another number of elements.
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
