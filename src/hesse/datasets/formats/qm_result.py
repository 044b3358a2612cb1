"""Result of a quantum-chemistry program for one geometry, in atomic units, and its conversion to eV and Å."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.errors import FileFormatError, InconsistentLabelsError
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Properties, Structure
from hesse.units import ENERGY_UNITS, LENGTH_UNITS

__all__ = ["CHARGE_NOT_STATED", "QMResult", "check_not_partial", "symmetric_from_lower"]

_HARTREE: Final = ENERGY_UNITS["hartree"]
_BOHR: Final = LENGTH_UNITS["bohr"]
_HESSIAN_UNIT: Final = _HARTREE / _BOHR**2
CHARGE_NOT_STATED: Final = "charge and multiplicity are not stated: taken as 0 and 1"
_FREQUENCY_TOLERANCE: Final = 0.03
"""Relative difference allowed between printed frequencies and those of the Hessian with average masses."""

_ZERO_ROWS_SUM: Final = 0.01
"""Sum over a row of a Hessian, in units of its largest element: above this, rows are missing if some are zero."""


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
        title: title of the job, if the file states one.
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
    title: str = ""
    masses: Float[Array, "n"] | None = None
    unused: tuple[str, ...] = ()

    def to_labeled_structure(self, id: str) -> tuple[Structure, Properties]:
        """Convert to a structure and its labels in the units used inside Hesse.

        Args:
            id: id of the structure, also its group.

        Returns:
            The structure in Å, and its labels in eV, eV/Å and eV/Å².

        Raises:
            FileFormatError: the Hessian has another size than the molecule, or is that of some atoms only.
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
        hessian = None
        if self.hessian is not None:
            if self.hessian.shape != (3 * n, 3 * n):
                raise FileFormatError(f'"{id}": a Hessian of shape {self.hessian.shape} for {n} atoms')
            self._check_rows()
            conflict = self.frequency_conflict()
            if conflict:
                raise InconsistentLabelsError(
                    f'"{id}": its Hessian has {conflict}: they belong to different calculations, the masses are '
                    "unusual isotopes, or the file is damaged"
                )
            hessian = (self.hessian * _HESSIAN_UNIT).reshape(n, 3, n, 3)
        labels = Properties.single(
            n,
            energy=None if self.energy is None else self.energy * _HARTREE,
            forces=None if self.gradient is None else -self.gradient * (_HARTREE / _BOHR),
            hessian=hessian,
            structure_id=id,
        )
        return structure, labels

    def _check_rows(self) -> None:
        """Refuse a Hessian whose rows of frozen atoms were left zero. An atom far from all others has such rows too;
        but then the rows of the others add up to zero."""
        assert self.hessian is not None
        n = len(self.numbers)
        n_free = int(np.count_nonzero(self.hessian.reshape(n, -1).any(1)))
        largest = np.abs(self.hessian).max(initial=0.0)
        sums = self.hessian.reshape(len(self.hessian), -1, 3).sum(1)
        if np.abs(sums).max(initial=0.0) > _ZERO_ROWS_SUM * largest:
            check_not_partial(3 * n_free, n)

    def frequency_conflict(self) -> str:
        """Compare printed frequencies and those of the Hessian, the higher half only: away from stationary points, low
        frequencies depend on how rotations were projected out.

        Returns:
            The first frequency that differs; empty if none does, or if one of the two was not printed.
        """
        if self.frequencies is None or self.hessian is None or len(self.numbers) < 2:
            return ""
        n = len(self.numbers)
        if self.hessian.shape != (3 * n, 3 * n) or not np.isfinite(self.hessian).all():
            return ""
        hessian = (self.hessian * _HESSIAN_UNIT).reshape(n, 3, n, 3)
        printed = np.sort(self.frequencies)[::-1]
        structure = Structure(self.numbers, self.positions, masses=self.masses)
        computed = normal_modes(structure, hessian).frequencies[::-1]
        n_compared = (min(len(printed), len(computed)) + 1) // 2
        differs = (
            np.abs(computed[:n_compared] - printed[:n_compared])
            > _FREQUENCY_TOLERANCE * np.abs(printed[:n_compared]) + 1.0
        )
        if not differs.any():
            return ""
        k = int(differs.argmax())
        return f"a frequency of {computed[k]:.1f} cm⁻¹ where the output prints {printed[k]:.1f}"


def check_not_partial(rows: int, n: int) -> None:
    """Refuse a Hessian of some atoms only, which programs write if the others are frozen.

    Args:
        rows: rows of the Hessian.
        n: number of atoms.

    Raises:
        FileFormatError: there are three rows for each of fewer atoms than `n`.
    """
    if rows < 3 * n and rows % 3 == 0 and rows:
        raise FileFormatError(
            f"a partial Hessian: of {rows // 3} of {n} atoms, because the others were frozen. The missing rows are "
            "unknown, so that partial Hessians are not read; compute it with all atoms free."
        )


def symmetric_from_lower(values: Float[Array, "elements"], n: int) -> Float[Array, "3n 3n"]:
    """Fill a symmetric matrix from its lower triangle.

    Args:
        values: the triangle row by row, diagonal included.
        n: number of atoms.

    Returns:
        The full matrix `[3n, 3n]`.

    Raises:
        FileFormatError: the number of elements does not fit; a partial Hessian is named.
    """
    size = 3 * n
    stated = (math.isqrt(8 * len(values) + 1) - 1) // 2
    if stated * (stated + 1) // 2 == len(values):
        check_not_partial(stated, n)
    if len(values) != size * (size + 1) // 2:
        raise FileFormatError(
            f"the lower triangle of a Hessian of {n} atoms has {size * (size + 1) // 2} elements, got {len(values)}"
        )
    matrix = np.zeros((size, size))
    rows, columns = np.tril_indices(size)
    matrix[rows, columns] = values
    matrix[columns, rows] = values
    return matrix
