"""The result of a saddle search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.curvature import LowestModes
from hesse.harmonic.normal_modes import NormalModes, normal_modes
from hesse.pes.geometry_changes import Displacement
from hesse.pes.surface import OptimizationHistory, atoms_with_results
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation, Structure

__all__ = ["SaddleResult"]

_MODE_ATOMS, _MODE_SHARE = 4, 0.1
"""Largest number of atoms that are named of a mode, and the least part of its squared displacements that each has."""


@dataclass(frozen=True, eq=False, repr=False)
class SaddleResult(ShortRepr):
    """The result of a saddle search.

    Attributes:
        structure: the last geometry; id, tag and group are those of the start.
        energy: eV.
        forces: eV/Å, `[n, 3]`.
        fmax: largest force on an atom, eV/Å.
        hessian: the Hessian of the engine at `structure`, eV/Å², `[n, 3, n, 3]`; None where forces did not converge.
        steps: number of steps taken.
        n_gradients: number of gradients computed.
        n_hessians: number of Hessians computed.
        converged: whether forces are below the limit and exactly one mode is negative.
        reason: the reason of not converging; empty otherwise.
        history: energy and largest force of every accepted geometry.
        displacement: how far `structure` is from the start, and the bonds that changed on the way. A saddle far from
            the start, or far below it, is often another one than was meant.
        extrapolation: how far `structure` is from the training data of a model; None for other engines, and for models
            that keep no summary of them.
        lowest_modes: of method "davidson", the two lowest modes at `structure`; None where forces did not converge.
        n_products: number of Hessian-vector products computed.
    """

    structure: Structure
    energy: float
    forces: Float[Array, "n 3"]
    fmax: float
    hessian: Float[Array, "n 3 n 3"] | None
    steps: int
    n_gradients: int
    n_hessians: int
    converged: bool
    reason: str
    history: OptimizationHistory
    displacement: Displacement
    extrapolation: Extrapolation | None = None
    lowest_modes: LowestModes | None = None
    n_products: int = 0

    @property
    def imaginary_frequency(self) -> float | None:
        """Wavenumber of the reaction mode, cm⁻¹, negative; None where the search did not converge."""
        modes = self.modes or self.lowest_modes
        return float(modes.frequencies[0]) if self.converged and modes is not None and len(modes) else None

    @property
    def energy_change(self) -> float:
        """Energy of `structure` minus that of the start, eV."""
        return self.energy - float(self.history.energies[0])

    @property
    def mode_atoms(self) -> tuple[int, ...]:
        """Indices of the atoms that move most in the reaction mode, the first most; empty where the search did not
        converge."""
        modes = self.modes or self.lowest_modes
        if modes is None or not len(modes):
            return ()
        shares = (modes.cartesian[0] ** 2).sum(axis=1)
        order = np.argsort(-shares, kind="stable")[:_MODE_ATOMS]
        return tuple(int(i) for i in order if shares[i] > _MODE_SHARE * shares.sum())

    @property
    def modes(self) -> NormalModes | None:
        """Normal modes at `structure`, the reaction mode first; None where there is no Hessian."""
        return None if self.hessian is None else normal_modes(self.structure, self.hessian)

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The last geometry, whose calculator holds energy (eV) and forces (eV/Å).
        """
        return atoms_with_results(self.structure, self.energy, self.forces)
