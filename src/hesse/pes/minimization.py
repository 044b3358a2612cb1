"""Relaxation to minima with any engine, by the optimizers of ASE; the structures of a list are moved together, so that
a model evaluates all of them in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import StructuresLike, as_structure, as_structures
from hesse.engines import Engine, EngineLike, as_engine
from hesse.errors import ConfigError, HesseError, check_choice, check_numbers, check_whole_numbers
from hesse.pes.points import Point, PointEvaluator
from hesse.pes.surface import OptimizationHistory, atoms_with_results, max_force
from hesse.pes.training_range import extrapolation, warn_if_outside
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation, Structure, to_ase

__all__ = ["MinimizationResult", "Optimizer", "minimize", "minimize_each"]

Optimizer = Literal["bfgs", "lbfgs", "fire"]

_OPTIMIZERS = ("bfgs", "lbfgs", "fire")
"""Names of optimizers of ASE, in lower case."""
_TOGETHER = 128
"""Number of structures that move together with a model; others wait until one of them has ended."""


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

    @property
    def reason(self) -> str:
        """The reason of not converging; empty otherwise."""
        return "" if self.converged else f"largest force {self.fmax:.3g} eV/Å after {self.steps} steps"

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
    optimizer: Optimizer = "bfgs",
) -> MinimizationResult:
    """Relax the atoms of one structure; the cell stays as it is.

    A symmetric start can end on a saddle point, because the forces that would break the symmetry are zero;
    `hesse.vibrations` shows that by imaginary modes, and `hesse.remove_imaginary_modes` leaves it.

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
    start = as_structure(structure)
    ((_, result),) = minimize_each(start, engine, fmax=fmax, steps=steps, optimizer=optimizer)
    if isinstance(result, HesseError):
        raise result
    warn_if_outside(result.extrapolation, f'structure "{start.id}": the relaxed geometry')
    return result


def minimize_each(
    structures: StructuresLike,
    engine: EngineLike,
    *,
    fmax: float = 0.005,
    steps: int = 500,
    optimizer: Optimizer = "bfgs",
) -> Iterator[tuple[int, MinimizationResult | HesseError]]:
    """Relax the structures of a list. A model evaluates those that are on their way in one pass.

    Each structure has an optimizer of its own: the results do not depend on the others.

    Args:
        structures: ASE Atoms, a Structure, a list of them, a Dataset, or the path of a file.
        engine: see `minimize`.
        fmax: see `minimize`.
        steps: see `minimize`.
        optimizer: see `minimize`.

    Returns:
        An iterator of the index of a structure and its result, as they end; where the engine failed or atoms collided,
        the error instead of a result.

    Raises:
        ConfigError: `fmax` or `steps` is not positive.
        UnknownOptionError: an unknown optimizer.
        RequestError: not structures, or not an engine.
    """
    starts, engine = as_structures(structures), as_engine(engine)
    check_numbers(fmax=fmax)
    check_whole_numbers(steps=steps)
    if not (np.isfinite(fmax) and fmax > 0) or steps < 1:
        raise ConfigError(f"minimize needs a positive fmax (eV/Å) and at least one step, got {fmax} and {steps}")
    check_choice(optimizer, _OPTIMIZERS, "optimizer")
    runs = (_Relaxation(index, start, engine, fmax, steps, optimizer) for index, start in enumerate(starts))
    return _move_together(runs, PointEvaluator(engine))


def _move_together(
    runs: Iterable[_Relaxation], evaluate: PointEvaluator
) -> Iterator[tuple[int, MinimizationResult | HesseError]]:
    waiting, moving, limit = iter(runs), list[_Relaxation](), _TOGETHER if evaluate.batched else 1
    while True:
        while len(moving) < limit and (run := next(waiting, None)) is not None:
            moving.append(run)
        if not moving:
            return
        still_moving = []
        for run, point in zip(moving, evaluate([run.structure for run in moving]), strict=True):
            result = run.advance(point)
            if result is None:
                still_moving.append(run)
            else:
                yield run.index, result
        moving = still_moving


class _Relaxation:
    """One structure on its way, with an optimizer of ASE."""

    def __init__(
        self, index: int, start: Structure, engine: Engine, fmax: float, steps: int, optimizer: Optimizer
    ) -> None:
        from ase import optimize  # imports half of ASE

        self.index, self.structure, self.engine, self.fmax, self.steps = index, start, engine, fmax, steps
        self.atoms = to_ase(start)
        self.optimizer: Any = getattr(optimize, optimizer.upper())(self.atoms, logfile=None)
        self.history: list[tuple[float, float]] = []

    def advance(self, point: Point | HesseError) -> MinimizationResult | HesseError | None:
        """Take a step from the present geometry, at which energy and gradient are given; the result where it ends."""
        from ase.calculators.singlepoint import SinglePointCalculator

        if isinstance(point, HesseError):
            return point
        self.history.append((point.energy, max_force(point.gradient)))
        converged = self.history[-1][1] < self.fmax
        if converged or len(self.history) > self.steps:
            return self._result(point, converged)
        # The optimizer finds the forces of this geometry with the atoms; none are computed by it.
        self.atoms.calc = SinglePointCalculator(self.atoms, energy=point.energy, forces=-point.gradient)
        self.optimizer.step()
        try:
            self.structure = self.structure.with_positions(self.atoms.positions, id=self.structure.id)
        except HesseError as error:  # positions that are not finite, or far away
            return error
        return None

    def _result(self, point: Point, converged: bool) -> MinimizationResult:
        return MinimizationResult(
            self.structure,
            point.energy,
            -point.gradient,
            max_force(point.gradient),
            len(self.history) - 1,
            converged,
            OptimizationHistory.from_points(self.history),
            extrapolation(self.engine, self.structure),
        )
