"""Energy, forces and stress of atoms that another program moves: the part that the drivers of all engines share."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.deploy.calculator import DEFAULT_SKIN, HesseCalculator
from hesse.engine import SinglePoint
from hesse.engines import PotentialLike
from hesse.errors import GeometryError
from hesse.potential import check_elements
from hesse.runtime.dtypes import DTypeLike
from hesse.structures import Structure, to_ase, to_structure

__all__ = ["ForceField"]


class ForceField:
    """Energy, forces and stress of atoms that another program moves, by the ASE calculator of Hesse.

    Elements and geometry are checked when it is created, before the program starts. Periodic images are found for cells
    of any size, also below the cutoff.

    Args:
        potential: as for `HesseCalculator`, or such a calculator.
        start: the atoms at the start, with their cell if they are periodic.
        dtype: "float64" or "float32"; default: that of the potential.
        device: "cpu", "cuda", ...; default: that of the potential.
        skin: Å, of the neighbor list.
        compile: as for `HesseCalculator`.

    Attributes:
        n_calls: number of geometries computed so far.

    Raises:
        UnknownElementError: an element that the potential does not support.
        GeometryError: two atoms are closer than 0.3 Å.
        RequestError: not atoms.
        HesseError: as `HesseCalculator`.
    """

    def __init__(
        self,
        potential: PotentialLike | HesseCalculator,
        start: Atoms | Structure,
        *,
        dtype: DTypeLike | None = None,
        device: torch.device | str | None = None,
        skin: float = DEFAULT_SKIN,
        compile: bool = False,
    ) -> None:
        structure = to_structure(start)
        if isinstance(potential, HesseCalculator) and dtype is None and device is None and not compile:
            self.calculator = potential
        else:
            self.calculator = HesseCalculator(potential, dtype=dtype, device=device, skin=skin, compile=compile)
        check_elements(self.calculator.potential, structure.numbers, where=f'structure "{structure.id}"')
        structure.check_no_overlap()
        self.atoms = to_ase(structure)
        self.n_calls = 0

    def __call__(
        self,
        positions: Float[Array, "n 3"] | ArrayLike,
        cell: Float[Array, "3 3"] | ArrayLike | None = None,
        *,
        stress: bool = False,
    ) -> SinglePoint:
        """Energy and forces at other positions.

        Args:
            positions: Å, `[atoms, 3]`, in the order of the start.
            cell: lattice vectors as rows, Å; None for those of the last call.
            stress: whether to compute the stress too; three periodic directions only.

        Returns:
            Energy (eV), forces (eV/Å) and stress (eV/Å³, `[3, 3]`, positive where the crystal is under tension).

        Raises:
            GeometryError: positions of another shape or not finite, two atoms closer than 0.3 Å, a stress of open
                structures.
            EngineError: a result that is not finite.
        """
        array = np.asarray(positions, dtype=np.float64)
        if array.shape != (len(self.atoms), 3) or not np.isfinite(array).all():
            raise GeometryError(f"expected finite positions of shape {(len(self.atoms), 3)}, got {array.shape}")
        self.atoms.positions = array
        if cell is not None:
            self.atoms.cell[:] = np.asarray(cell, dtype=np.float64)
        names = ["energy", "forces", "stress"] if stress else ["energy", "forces"]
        self.calculator.calculate(self.atoms, names)
        self.n_calls += 1
        results = self.calculator.results
        full = voigt_6_to_full_3x3_stress(results["stress"]) if stress else None
        return SinglePoint(float(results["energy"]), results["forces"], full)
