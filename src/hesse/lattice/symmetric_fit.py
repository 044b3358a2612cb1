"""Least squares of force constants with the symmetry of a crystal, prepared once for many weights of the same data."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import EngineError, LabelShapeError
from hesse.lattice.supercells import phonopy_errors

__all__ = ["NormalEquations", "SymmetricFit"]

_WHAT = "force constants cannot be fitted to the forces of displaced supercells"


class NormalEquations:
    """Normal equations of each displaced supercell.

    Attributes:
        products: XᵀX of each supercell, `[supercells, parameters, parameters]`.
        sides: Xᵀ f of each, `[supercells, parameters]`.
    """

    def __init__(self, products: Float[Array, "m p p"], sides: Float[Array, "m p"]) -> None:
        self.products, self.sides = products, sides

    def part(self, keep: Array) -> NormalEquations:
        """Those of some of the supercells.

        Args:
            keep: which ones.

        Returns:
            Their normal equations.
        """
        return NormalEquations(self.products[keep], self.sides[keep])

    def solve(self, weights: Float[Array, "m"]) -> Float[Array, "p"]:
        """Solve the weighted least-squares problem.

        Args:
            weights: of the supercells.

        Returns:
            The parameters.

        Raises:
            EngineError: the forces do not determine them.
        """
        matrix, side = np.tensordot(weights, self.products, 1), weights @ self.sides
        try:
            return np.asarray(np.linalg.solve(matrix, side))
        except np.linalg.LinAlgError:
            raise EngineError(f"{_WHAT}: they do not determine all of them. More snapshots") from None


class SymmetricFit:
    """Force constants as sums of symmetric ones, which symfc finds.

    Args:
        record: `phonopy.Phonopy`, whose supercell and space group are used.

    Raises:
        EngineError: symfc failed.
    """

    def __init__(self, record: Any) -> None:
        supercell = record.supercell
        self.n_atoms = len(supercell)
        with phonopy_errors(_WHAT, EngineError):
            from symfc import Symfc
            from symfc.utils.utils import SymfcAtoms

            atoms = SymfcAtoms(
                cell=supercell.cell, scaled_positions=supercell.scaled_positions, numbers=supercell.numbers
            )
            basis = Symfc(atoms).compute_basis_set(2).basis_set[2]
            expansion, vectors = basis.compression_matrix, basis.blocked_basis_set
            self.n_parameters = vectors.shape[1]
            # One full matrix of force constants for each parameter, [3 n, 3 n].
            self._matrices = [
                (expansion @ (vectors @ unit)).reshape(self.n_atoms, self.n_atoms, 3, 3).transpose(0, 2, 1, 3)
                for unit in np.eye(self.n_parameters)
            ]
        size = 3 * self.n_atoms
        self._matrices = [matrix.reshape(size, size) for matrix in self._matrices]

    def normal_equations(self, moves: Float[Array, "m n 3"], forces: Float[Array, "m n 3"]) -> NormalEquations:
        """Prepare the fit to forces = −Φ displacements.

        Args:
            moves: displacements, Å.
            forces: forces, eV/Å.

        Returns:
            Normal equations of each supercell.

        Raises:
            LabelShapeError: another number of atoms.
        """
        if moves.shape != forces.shape or moves.shape[1:] != (self.n_atoms, 3):
            raise LabelShapeError(
                f"expected displacements and forces [supercells, {self.n_atoms}, 3], got {moves.shape}, {forces.shape}"
            )
        flat, targets = moves.reshape(len(moves), -1), forces.reshape(len(moves), -1)
        design = np.stack([-flat @ matrix for matrix in self._matrices], axis=-1)  # [m, 3n, p]
        return NormalEquations(np.swapaxes(design, 1, 2) @ design, np.einsum("mxp,mx->mp", design, targets))

    def force_constants(self, parameters: Float[Array, "p"]) -> Float[Array, "n n 3 3"]:
        """Force constants of all atoms of the supercell.

        Args:
            parameters: of the fit.

        Returns:
            eV/Å².
        """
        n = self.n_atoms
        total = sum(value * matrix for value, matrix in zip(parameters, self._matrices, strict=True))
        return np.asarray(total).reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
