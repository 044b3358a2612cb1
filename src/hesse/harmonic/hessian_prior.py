"""The prior of a Hessian, before anything is computed: a mean and a spread of each pair of atoms.

The 3 x 3 block of two atoms is described by its component along the line between them and by those across it. Their
means and standard deviations depend on the distance, in units of the sum of the covalent radii, and on whether none,
one or both of the atoms are hydrogen. They were taken from 400 Hessians of reactants, transition states and products
(H, C, N, O; GFN2-xTB; `benchmarks/hessian_completion.py fit`). The blocks on the diagonal follow from translations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.structures import Structure, species_radii

__all__ = ["BlockSpread", "HessianPrior", "typical_hessian"]

_TABLES = (
    (
        (0.848, -68.1, -4.54, 24.5, 1.54, 1.92),
        (0.919, -32.0, -5.52, 5.37, 2.19, 1.92),
        (0.961, -24.6, -4.61, 4.61, 2.16, 1.93),
        (0.984, -21.3, -4.86, 3.19, 1.52, 1.58),
        (1, -18.5, -5.23, 2.77, 1.46, 1.25),
        (1.11, -11.8, -3.02, 6.91, 2.22, 2.31),
        (1.47, -6.85, 0.609, 3.41, 1.6, 1.44),
        (1.56, -6.07, 0.752, 2.97, 1.4, 1.31),
        (1.64, -4.68, 0.586, 2.14, 0.98, 1),
        (1.68, -4.27, 0.573, 2.05, 0.988, 0.746),
        (1.72, -3.86, 0.448, 1.89, 0.953, 0.793),
        (1.81, -2.2, 0.378, 1.94, 0.989, 0.943),
        (2.08, -0.035, 0.00427, 0.559, 0.429, 0.525),
        (2.34, -0.196, -0.0303, 0.701, 0.4, 0.365),
        (2.51, -0.304, 0.0339, 0.794, 0.446, 0.36),
        (3.08, -0.186, 0.0494, 0.62, 0.279, 0.197),
    ),
    (
        (1, -33.0, -2.97, 4.67, 0.92, 0.975),
        (1.02, -27.3, -3.95, 0.665, 0.492, 0.371),
        (1.4, -12.5, -1.63, 11.2, 1.68, 1.89),
        (1.99, -2.74, 0.394, 0.499, 0.858, 0.377),
        (2.04, -2.57, 0.393, 0.706, 0.853, 0.386),
        (2.08, -2.53, 0.385, 1.15, 0.794, 0.464),
        (2.19, -2.07, 0.321, 1.63, 0.71, 0.446),
        (2.51, 0.0468, 0.0236, 0.315, 0.2, 0.217),
        (2.68, 0.052, 0.0046, 0.253, 0.175, 0.171),
        (2.88, -0.102, -0.00418, 0.363, 0.314, 0.438),
        (3.06, -0.212, 0.0205, 0.29, 0.24, 0.224),
        (3.21, -0.245, 0.0324, 0.249, 0.261, 0.343),
        (3.43, -0.175, 0.0329, 0.277, 0.204, 0.199),
        (3.79, -0.00053, 0.000286, 0.108, 0.0931, 0.0971),
        (4.17, -0.0423, 0.00798, 0.107, 0.0953, 0.0798),
        (4.95, -0.0219, 0.00379, 0.0765, 0.0555, 0.0411),
    ),
    (
        (2.81, -2.9, 0.534, 1.96, 0.992, 0.556),
        (2.87, -2.66, 0.517, 0.156, 0.941, 0.279),
        (3.38, -1.09, 0.213, 1.15, 0.536, 0.259),
        (3.97, 0.0426, 0.036, 0.0935, 0.0764, 0.0882),
        (4.12, 0.0041, 0.0184, 0.085, 0.0641, 0.0564),
        (4.45, -0.0964, -0.000105, 0.153, 0.115, 0.0733),
        (4.83, -0.212, -0.0127, 0.194, 0.196, 0.141),
        (5.09, -0.125, 0.00198, 0.15, 0.157, 0.123),
        (5.66, 0.0297, -0.00127, 0.112, 0.0908, 0.0607),
        (6.01, 0.0308, -0.00464, 0.0478, 0.0343, 0.0278),
        (6.25, 0.0103, -0.00241, 0.0427, 0.043, 0.0442),
        (6.6, -0.0284, 0.0102, 0.0555, 0.0568, 0.0414),
        (6.95, -0.0327, 0.00551, 0.0544, 0.043, 0.0272),
        (7.47, 0.00882, -0.00046, 0.0218, 0.0183, 0.0201),
        (8.1, 0.00494, 8.29e-05, 0.0216, 0.0221, 0.0261),
        (9.41, -4.35e-05, 0.000462, 0.0125, 0.0104, 0.0126),
    ),
)
"""Rows: distance over the sum of covalent radii; mean along, mean across; standard deviation along, of the mixed
components, across; all in eV/Å². One table for pairs with no, one and two hydrogen atoms."""
_MIN_SPREAD = 0.005
"""eV/Å²."""
_DIAGONAL_SPREAD = 12.0
"""eV/Å², of the blocks on the diagonal: broad, since translations determine them."""


@dataclass(frozen=True, eq=False)
class BlockSpread:
    """Variances of the deviations from the mean, for the block of each pair of atoms.

    Attributes:
        along: projectors on the line between two atoms, `u uᵀ`; zero for an atom with itself.
        units: the unit vectors u from the first to the second atom.
        parallel: variance of the component along the line, eV²/Å⁴.
        mixed: variance of the components along the line in one index.
        across: variance of the components across the line.
    """

    along: Float[Array, "n n 3 3"]
    units: Float[Array, "n n 3"]
    parallel: Float[Array, "n n"]
    mixed: Float[Array, "n n"]
    across: Float[Array, "n n"]

    def apply(self, matrix: Float[Array, "3n 3n"]) -> Float[Array, "3n 3n"]:
        """Multiply each component of each block by its variance.

        Args:
            matrix: symmetric, `[3n, 3n]`.

        Returns:
            The result, `[3n, 3n]`.
        """
        n = len(self.parallel)
        block = matrix.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
        left = self.along @ block
        both, right = left @ self.along, block @ self.along
        mixed, across = left + right - 2.0 * both, block - left - right + both
        variances = (v[..., None, None] for v in (self.parallel, self.mixed, self.across))
        result = sum(v * part for v, part in zip(variances, (both, mixed, across), strict=True))
        return np.asarray(result).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


@dataclass(frozen=True, eq=False)
class HessianPrior:
    """An expected Hessian and how far the true one may be from it.

    Attributes:
        mean: eV/Å², `[3n, 3n]`.
        spread: variances of the deviations.
    """

    mean: Float[Array, "3n 3n"]
    spread: BlockSpread


def typical_hessian(structure: Structure) -> HessianPrior:
    """The Hessian that a molecule of these distances typically has, and its spread. It is covariant under rotations.

    Args:
        structure: a molecule.

    Returns:
        Mean and spread.
    """
    n = len(structure)
    radii = species_radii(structure.numbers)
    vectors = structure.positions[None] - structure.positions[:, None]
    distances = np.linalg.norm(vectors, axis=-1)
    np.fill_diagonal(distances, 1.0)
    units = vectors / distances[..., None]
    ratio = distances / (radii[:, None] + radii[None])
    hydrogen = (structure.numbers == 1).astype(int)
    kind = hydrogen[:, None] + hydrogen[None]
    columns = np.zeros((5, n, n))
    for k, table in enumerate(_TABLES):
        rows, here = np.array(table), kind == k
        for c in range(5):
            values = rows[:, c + 1] if c < 2 else np.log(rows[:, c + 1])
            interpolated = np.interp(ratio[here], rows[:, 0], values)
            columns[c][here] = interpolated if c < 2 else np.exp(interpolated)
    along = units[..., :, None] * units[..., None, :]
    mean = columns[0][..., None, None] * along + columns[1][..., None, None] * (np.eye(3) - along)
    mean[range(n), range(n)] = 0.0
    mean[range(n), range(n)] = -mean.sum(1)
    spreads = np.maximum(columns[2:], _MIN_SPREAD)
    spreads[:, range(n), range(n)] = _DIAGONAL_SPREAD
    spread = BlockSpread(along, units, *np.square(spreads))
    return HessianPrior(mean.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n), spread)
