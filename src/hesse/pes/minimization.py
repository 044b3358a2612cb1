"""Relaxation to a minimum, by ASE's optimizers on any engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.optimize import BFGS, FIRE, LBFGS

from hesse.engines import Engine, EngineCalculator
from hesse.errors import ConfigError, check_choice
from hesse.pes.surface import OptimizationHistory, max_force
from hesse.structures import Structure, to_ase

__all__ = ["MinimizationResult", "minimize"]

_OPTIMIZERS = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}


@dataclass(frozen=True, eq=False)
class MinimizationResult:
    """Where a relaxation ended.

    Attributes:
        structure: the last geometry; id, tag and group are those of the start.
        energy: eV.
        fmax: largest force on an atom, eV/Å.
        steps: steps taken.
        converged: whether `fmax` fell below what was asked.
        record: the way there.
    """

    structure: Structure
    energy: float
    fmax: float
    steps: int
    converged: bool
    history: OptimizationHistory


def minimize(
    structure: Structure,
    engine: Engine,
    *,
    fmax: float = 0.005,
    steps: int = 500,
    optimizer: Literal["bfgs", "lbfgs", "fire"] = "bfgs",
) -> MinimizationResult:
    """Move atoms (not the cell) downhill until no force exceeds `fmax` eV/Å, in at most `steps` steps.

    The result says whether it converged; not converging is no error. Symmetric starts can end on a saddle point: the
    forces that would break a symmetry are zero. `hesse.harmonic.normal_modes.normal_modes` tells.

    Raises:
        ConfigError: `fmax` or `steps` not positive, an unknown optimizer.
        EngineError, GeometryError: from the engine, on the way.
    """
    if not (np.isfinite(fmax) and fmax > 0) or steps < 1:
        raise ConfigError(f"minimize needs a positive fmax (eV/Å) and at least one step, got {fmax} and {steps}")
    optimizer_class = _OPTIMIZERS[check_choice(optimizer, _OPTIMIZERS, "optimizer")]
    atoms = to_ase(structure)
    atoms.calc = EngineCalculator(engine, structure)
    run = optimizer_class(atoms, logfile=None)
    points: list[tuple[float, float]] = []
    run.attach(lambda: points.append((float(atoms.get_potential_energy()), max_force(atoms.get_forces()))))
    converged = bool(run.run(fmax=fmax, steps=steps))
    relaxed = structure.with_positions(atoms.positions, id=structure.id)
    history = OptimizationHistory.from_points(points)
    energy, largest = float(atoms.get_potential_energy()), max_force(atoms.get_forces())
    return MinimizationResult(relaxed, energy, largest, int(run.nsteps), converged, history)
