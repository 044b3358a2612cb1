"""Relaxation of crystals with any engine: atoms, and cells where asked, keeping the space group."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import units
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engines import Engine, EngineCalculator
from hesse.errors import ConfigError, EngineError, GeometryError, HesseError, check_numbers, check_whole_numbers
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Request, Structure, from_ase, to_ase

__all__ = ["CrystalState", "relax_crystal", "state_of"]

GPA = float(units.GPa)
"""eV/Å³."""
_MAX_VOLUME_CHANGE = 2.0


@dataclass(frozen=True, eq=False, repr=False)
class CrystalState(ShortRepr):
    """Energy, forces and stress of a crystal.

    Attributes:
        structure: the crystal.
        energy: eV.
        fmax: largest force on an atom, eV/Å.
        stress: GPa, positive where the crystal is pulled apart, `[3, 3]`; None for engines without stress.
    """

    structure: Structure
    energy: float
    fmax: float
    stress: Float[Array, "3 3"] | None

    @property
    def pressure(self) -> float | None:
        """Minus a third of the trace of the stress, GPa; None without stress."""
        return None if self.stress is None else -float(np.trace(self.stress)) / 3.0

    @property
    def shear(self) -> float | None:
        """Largest element of the stress less its trace, GPa; None without stress."""
        return (
            None if self.stress is None else float(np.abs(self.stress - np.trace(self.stress) / 3.0 * np.eye(3)).max())
        )


def state_of(structure: Structure, engine: Engine) -> CrystalState:
    """Compute energy, forces and, where the engine has it, stress.

    Args:
        structure: the crystal.
        engine: the engine.

    Returns:
        The state.

    Raises:
        EngineError: the engine failed.
    """
    stress = None
    try:
        labels = engine.compute(structure, Request(forces=True, stress=True))
        assert labels.stress is not None
        stress = labels.stress[0].double().numpy() / GPA
    except HesseError:  # an engine without stress, or one that fails in forces too, which the next line tells
        labels = engine.compute(structure, Request(forces=True))
    assert labels.energy is not None
    assert labels.forces is not None
    forces = labels.forces.double().numpy()
    return CrystalState(structure, float(labels.energy[0]), float(np.linalg.norm(forces, axis=1).max()), stress)


def relax_crystal(
    structure: Structure,
    engine: Engine,
    *,
    cell: bool = False,
    pressure: float = 0.0,
    volume: bool = False,
    fmax: float = 1e-3,
    steps: int = 300,
    symprec: float = 1e-5,
) -> CrystalState:
    """Relax a crystal, keeping its space group.

    Args:
        structure: the crystal.
        engine: the engine; relaxation of the cell needs its stress.
        cell: relax the cell too.
        pressure: external pressure of a cell that is relaxed, GPa.
        volume: relax the shape of the cell at constant volume (with `cell`).
        fmax: largest force at the end, eV/Å; for cells the largest component of the stress times the volume per atom
            counts as a force.
        steps: maximal number of steps.
        symprec: tolerance of the space group, Å.

    Returns:
        The relaxed crystal.

    Raises:
        ConfigError: numbers that are none.
        EngineError: the engine failed, or it did not converge.
        RequestError: an engine without stress whose cell is to be relaxed.
        GeometryError: the cell left all bounds.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    check_numbers(fmax=fmax, pressure=pressure)
    check_whole_numbers(steps=steps)
    if not (fmax > 0 and steps >= 1):
        raise ConfigError(f"a relaxation needs a positive fmax (eV/Å) and at least one step, got {fmax} and {steps}")
    if cell:  # tells at once where there is no stress
        engine.compute(structure, Request(forces=True, stress=True))
    atoms = to_ase(structure)
    atoms.calc = EngineCalculator(engine, structure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms.set_constraint(FixSymmetry(atoms, symprec=symprec))
        target: Any = atoms
        if cell:
            target = FrechetCellFilter(atoms, scalar_pressure=pressure * GPA, constant_volume=volume)
        optimizer = BFGS(target, logfile=None)
        start = atoms.get_volume()
        converged = False
        for k, converged in enumerate(optimizer.irun(fmax=fmax, steps=steps)):  # noqa: B007 (used after the loop)
            ratio = atoms.get_volume() / start
            if not 1 / _MAX_VOLUME_CHANGE < ratio < _MAX_VOLUME_CHANGE:
                raise GeometryError(
                    f'structure "{structure.id}": the volume changed by a factor of {ratio:.2f} in {k} steps of the '
                    "relaxation: the engine does not hold this crystal together, or the cell is in another unit"
                )
    relaxed = from_ase(atoms, id=structure.id)
    result = state_of(relaxed, engine)
    if not converged:
        raise EngineError(
            f'structure "{structure.id}": not relaxed after {steps} steps (largest force {result.fmax:.3g} eV/Å'
            + ("" if result.pressure is None else f", pressure {result.pressure:.3g} GPa")
            + "): give more steps"
        )
    return result
