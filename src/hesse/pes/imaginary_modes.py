"""Removal of false imaginary modes: a relaxed structure that is no minimum is displaced along its lowest mode and
relaxed again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineLike, as_engine
from hesse.errors import ConfigError, check_numbers, check_whole_numbers
from hesse.harmonic.normal_modes import NormalModes, normal_modes
from hesse.pes.minimization import MinimizationResult, Optimizer, minimize
from hesse.pes.surface import CountedSurface
from hesse.runtime.short_repr import ShortRepr

__all__ = ["MinimumResult", "remove_imaginary_modes"]

_DISPLACEMENT = 0.1
"""Å, of the atom that moves most in the first round; each further round goes that much farther."""


@dataclass(frozen=True, eq=False, repr=False)
class MinimumResult(ShortRepr):
    """A relaxed structure whose imaginary modes were followed.

    Attributes:
        minimization: the last relaxation.
        modes: normal modes at its end; None where it did not converge.
        rounds: how often the structure was displaced along its lowest mode.
        n_gradients: number of gradients computed, those of finite-difference Hessians not counted.
        n_hessians: number of Hessians computed.
        converged: whether forces are below the limit and no imaginary mode is left.
        reason: the reason of not converging; empty otherwise.
    """

    minimization: MinimizationResult
    modes: NormalModes | None
    rounds: int
    n_gradients: int
    n_hessians: int
    converged: bool
    reason: str

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The last geometry, whose calculator holds energy (eV) and forces (eV/Å).
        """
        return self.minimization.to_ase()


def remove_imaginary_modes(
    structure: StructuresLike,
    engine: EngineLike,
    *,
    fmax: float = 0.005,
    steps: int = 500,
    optimizer: Optimizer = "bfgs",
    rounds: int = 5,
) -> MinimumResult:
    """Relax a structure to a true minimum: one without imaginary modes.

    As long as there is an imaginary mode, the structure is displaced along the lowest one, to the side of lower energy,
    and relaxed again: by 0.1 Å more, and to forces half as large, in every round.

    Args:
        structure: one structure: ASE Atoms, a Structure, or the path of a file with one structure.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        fmax: limit of the largest force on an atom of the first relaxation, eV/Å.
        steps: maximal number of steps of each relaxation.
        optimizer: "bfgs", "lbfgs" or "fire", as in ASE.
        rounds: largest number of displacements.

    Returns:
        The last relaxation and its modes; imaginary modes that are left are no error, the result has the reason.

    Raises:
        ConfigError: `fmax`, `steps` or `rounds` is not positive.
        UnknownOptionError: an unknown optimizer.
        RequestError: not one structure, or not an engine.
        EngineError: the engine failed.
        GeometryError: atoms collided.
    """
    start, engine = as_structure(structure), as_engine(engine)
    check_numbers(fmax=fmax)
    check_whole_numbers(rounds=rounds)
    if rounds < 1:
        raise ConfigError(f"remove_imaginary_modes needs at least one round, got {rounds}")
    surface = CountedSurface(engine, start)
    n_gradients, current = 0, start
    for done in range(rounds + 1):
        run = minimize(current, engine, fmax=fmax / 2**done, steps=steps, optimizer=optimizer)
        n_gradients += len(run.history)
        modes = normal_modes(run.structure, surface.hessian(run.structure.positions)) if run.converged else None
        if modes is None or modes.n_imaginary == 0 or done == rounds:
            break
        direction = modes.cartesian[0]
        shift = (done + 1) * _DISPLACEMENT / np.linalg.norm(direction, axis=1).max() * direction
        sides = [run.structure.positions + sign * shift for sign in (1, -1)]
        lower = min(sides, key=lambda positions: surface.gradient(positions)[0])
        current = surface.structure_at(lower)
    reason = run.reason
    if modes is not None and modes.n_imaginary:
        reason = f"{modes.n_imaginary} imaginary modes are left, the lowest {-modes.frequencies[0]:.0f}i cm⁻¹"
    return MinimumResult(run, modes, done, n_gradients + surface.n_gradients, surface.n_hessians, not reason, reason)
