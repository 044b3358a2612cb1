"""Lattice vectors by the numbers that Quantum ESPRESSO gives to Bravais lattices (`ibrav` of its input description)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import FileFormatError

__all__ = ["bravais_cell"]

_CENTERED = {
    2: [[-1, 0, 1], [0, 1, 1], [-1, 1, 0]],
    3: [[1, 1, 1], [-1, 1, 1], [-1, -1, 1]],
    -3: [[-1, 1, 1], [1, -1, 1], [1, 1, -1]],
    7: [[1, -1, 1], [1, 1, 1], [-1, -1, 1]],
    9: [[1, 1, 0], [-1, 1, 0], [0, 0, 2]],
    -9: [[1, -1, 0], [1, 1, 0], [0, 0, 2]],
    10: [[1, 0, 1], [1, 1, 0], [0, 1, 1]],
    11: [[1, 1, 1], [-1, 1, 1], [-1, -1, 1]],
}
"""Twice the lattice vectors of centered cells in those of the rectangular cell."""
_CUBIC, _TETRAGONAL, _RECTANGULAR = (1, 2, 3, -3), (6, 7), (8, 9, -9, 10, 11)


def bravais_cell(number: int, parameters: Sequence[float]) -> Float[Array, "3 3"]:
    """Lattice vectors of a Bravais lattice.

    Args:
        number: `ibrav`, other than 0.
        parameters: `celldm`: the length a, then b/a, c/a, and cosines of angles.

    Returns:
        Rows, in units of a.

    Raises:
        FileFormatError: an unknown number, or parameters that are no lattice.
    """
    _, b, c, *cosines = (float(x) for x in parameters)
    with np.errstate(invalid="ignore"):
        cell = _cell(number, b, c, cosines)
    if cell is None:
        raise FileFormatError(
            f"ibrav {number}: expected 1 to 14, -3, -9 or -12 (0 has its lattice vectors in the file)"
        )
    if not (np.isfinite(cell).all() and np.linalg.det(cell) > 1e-6):
        raise FileFormatError(f"ibrav {number} with celldm {list(parameters)}: no lattice with a volume")
    return cell


def _cell(number: int, b: float, c: float, cosines: Sequence[float]) -> Float[Array, "3 3"] | None:
    if number in (*_CUBIC, *_TETRAGONAL, *_RECTANGULAR):
        edges = (1.0, 1.0, 1.0) if number in _CUBIC else (1.0, 1.0, c) if number in _TETRAGONAL else (1.0, b, c)
        return 0.5 * np.array(_CENTERED.get(number, 2 * np.eye(3))) * edges
    if number == 4:
        return np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, c]])
    if number == 5:
        x, y, z = np.sqrt(np.array([(1 - cosines[0]) / 2, (1 - cosines[0]) / 6, (1 + 2 * cosines[0]) / 3]))
        return np.array([[x, -y, z], [0, 2 * y, z], [-x, -y, z]])
    if number == -12:
        return np.array([[1, 0, 0], [0, b, 0], [c * cosines[1], 0, c * _sine(cosines[1])]])
    if number in (12, 13):
        second = [b * cosines[0], b * _sine(cosines[0]), 0]
        if number == 12:
            return np.array([[1, 0, 0], second, [0, 0, c]])
        return np.array([[0.5, 0, -0.5 * c], second, [0.5, 0, 0.5 * c]])
    if number == 14:
        bc, ac, ab = cosines
        height = np.sqrt(1 + 2 * bc * ac * ab - bc**2 - ac**2 - ab**2)
        third = np.array([ac * _sine(ab), bc - ac * ab, height]) * c / _sine(ab)
        return np.array([[1, 0, 0], [b * ab, b * _sine(ab), 0], third])
    return None


def _sine(cosine: float) -> float:
    return float(np.sqrt(1 - cosine**2))
