"""Relaxation to a minimum with any engine, by the optimizers of ASE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineCalculator, EngineLike, as_engine
from hesse.errors import ConfigError, check_choice, check_numbers, check_whole_numbers
from hesse.pes.surface import OptimizationHistory, atoms_with_results, max_force
from hesse.pes.training_range import extrapolation, warn_if_outside
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation, Structure, to_ase

__all__ = ["MinimizationResult", "minimize"]

_OPTIMIZERS = ("bfgs", "lbfgs", "fire")
"""Names of optimizers of ASE, in lower case."""


@dataclass(frozen=True, eq=False, repr=False)
class MinimizationResult(ShortRepr):
    """The result of a relaxation.

    Attributes:
        structure: the last geometry; id, tag and group are those of the start.
        energy: eV.
        forces: eV/Å, `[n, 3]`.
        fmax: largest force on an atom, eV/Å.
        steps: number of steps taken.
        converged: whether `fmax` fell below its limit.
        history: energy and largest force of every geometry.
        extrapolation: how far `structure` is from the training data of a model; None for other engines, and for models
            that keep no summary of them.
    """

    structure: Structure
    energy: float
    forces: Float[Array, "n 3"]
    fmax: float
    steps: int
    converged: bool
    history: OptimizationHistory
    extrapolation: Extrapolation | None = None

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The last geometry, whose calculator holds energy (eV) and forces (eV/Å).
        """
        return atoms_with_results(self.structure, self.energy, self.forces)


def minimize(
    structure: StructuresLike,
    engine: EngineLike,
    *,
    fmax: float = 0.005,
    steps: int = 500,
    optimizer: Literal["bfgs", "lbfgs", "fire"] = "bfgs",
) -> MinimizationResult:
    """Relax the atoms of one structure; the cell stays as it is.

    A symmetric start can end on a saddle point, because the forces that would break the symmetry are zero;
    `hesse.vibrations` shows that by imaginary modes.

    Args:
        structure: one structure: ASE Atoms, a Structure, or the path of a file with one structure.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        fmax: relaxation ends when no force on an atom exceeds this, eV/Å.
        steps: maximal number of steps.
        optimizer: "bfgs", "lbfgs" or "fire", as in ASE.

    Returns:
        The last geometry, its energy and forces, and whether it converged; not converging is not an error.

    Raises:
        ConfigError: `fmax` or `steps` is not positive.
        UnknownOptionError: an unknown optimizer.
        RequestError: not one structure, or not an engine.
        EngineError: the engine failed.
        GeometryError: atoms collided.
    """
    structure, engine = as_structure(structure), as_engine(engine)
    check_numbers(fmax=fmax)
    check_whole_numbers(steps=steps)
    if not (np.isfinite(fmax) and fmax > 0) or steps < 1:
        raise ConfigError(f"minimize needs a positive fmax (eV/Å) and at least one step, got {fmax} and {steps}")
    from ase import optimize  # imports half of ASE

    optimizer_class = getattr(optimize, check_choice(optimizer, _OPTIMIZERS, "optimizer").upper())
    atoms = to_ase(structure)
    atoms.calc = EngineCalculator(engine, structure)
    run = optimizer_class(atoms, logfile=None)
    points: list[tuple[float, float]] = []
    run.attach(lambda: points.append((float(atoms.get_potential_energy()), max_force(atoms.get_forces()))))
    converged = bool(run.run(fmax=fmax, steps=steps))
    relaxed = structure.with_positions(atoms.positions, id=structure.id)
    history = OptimizationHistory.from_points(points)
    energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces())
    found = extrapolation(engine, relaxed)
    warn_if_outside(found, f'structure "{structure.id}": the relaxed geometry')
    return MinimizationResult(relaxed, energy, forces, max_force(forces), int(run.nsteps), converged, history, found)
