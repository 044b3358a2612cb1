"""The intrinsic reaction coordinate: the path of steepest descent from a transition state, in mass-weighted coordinates
(Fukui, Acc. Chem. Res. 14, 363 (1981)).

Predictor and corrector, as by Hratchian and Schlegel (J. Chem. Phys. 120, 9918 (2004); JCTC 1, 61 (2005)): the
predictor follows steepest descent on the local quadratic model for one step; with energy and gradient at its end, the
corrector follows it again from the same start on the surface that interpolates between the two quadratic models. The
Hessian is the engine's at the transition state and is updated on the way. Two gradients a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from hesse.engines import Engine
from hesse.errors import ConfigError, LabelShapeError, RequestError, require_choice
from hesse.harmonic import normal_modes
from hesse.pes.convergence import largest_force
from hesse.pes.landscape import Landscape
from hesse.pes.quasi_newton import bofill_update
from hesse.structures import Structure

__all__ = ["IRCResult", "PathPoint", "irc"]

_START = 0.1
"""The first step leaves the transition state along the reaction mode by this part of a step; the rest is descent."""
_TOLERANCE = 1e-5
"""Relative tolerance of the integration on model surfaces: far below the error of the models."""
_STATIONARY = 0.1
"""eV/Å; with larger forces a structure is no transition state, and its mode no beginning of a path."""
_STALLED = 1e-6
"""√u eV/Å per √u; a model surface is flat where its mass-weighted gradient falls below this."""


@dataclass(frozen=True, eq=False)
class PathPoint:
    """One point of a path.

    Attributes:
        structure: id `{start}/irc/+0012` (the number of steps), tag and group of the transition state.
        energy: eV.
        forces: eV/Å, `[n, 3]`.
        fmax: largest force on an atom, eV/Å.
        arc: length of the path from the transition state, Å √u; negative on the backward side.
    """

    structure: Structure
    energy: float
    forces: Float[Array, "n 3"]
    fmax: float
    arc: float


@dataclass(frozen=True, eq=False)
class IRCResult:
    """Both halves of a path, from the transition state outwards.

    Attributes:
        saddle: the transition state.
        forward: points in order along the reaction mode; the mode's sign makes its largest component positive.
        backward: points in order against it.
        forward_end, backward_end: why each half ended: "minimum" (forces below what was asked), "energy rises" (the
            path passed the floor of its valley within one step), "steps" (all asked were taken) or "not asked".
        gradients: asked of the engine.
    """

    saddle: PathPoint
    forward: tuple[PathPoint, ...]
    backward: tuple[PathPoint, ...]
    forward_end: str
    backward_end: str
    gradients: int

    @property
    def points(self) -> tuple[PathPoint, ...]:
        """The whole path, from the backward end over the transition state to the forward end."""
        return (*reversed(self.backward), self.saddle, *self.forward)

    @property
    def converged(self) -> bool:
        """Whether every half that was asked left the transition state and came down to a minimum."""
        halves = ((self.forward, self.forward_end), (self.backward, self.backward_end))
        return all(end == "not asked" or (points and end != "steps") for points, end in halves)


def irc(
    structure: Structure,
    engine: Engine,
    *,
    hessian: ArrayLike | None = None,
    step: float = 0.1,
    steps: int = 200,
    fmax: float = 0.02,
    directions: Literal["both", "forward", "backward"] = "both",
) -> IRCResult:
    """Follow the reaction path from a transition state down both sides.

    Args:
        structure: a first-order saddle point, as from `saddle`.
        hessian: at `structure`, `[n, 3, n, 3]` in eV/Å², where it is known; else the engine is asked.
        step: Å √u, length of a step along the path. Errors fall with its square or faster.
        steps: per direction, at most.
        fmax: eV/Å; a half ends below it. The ends are near minima, not relaxed: see `minimise`.
        directions: which halves to follow.

    Raises:
        ConfigError: `step`, `steps` or `fmax` not positive, an unknown direction.
        RequestError: the structure is no transition state: forces above 0.1 eV/Å, or no imaginary mode.
        LabelShapeError: a Hessian of another shape.
        EngineError, GeometryError: from the engine, on the way.
    """
    if not (np.isfinite(step) and step > 0 and np.isfinite(fmax) and fmax > 0) or steps < 1:
        raise ConfigError(f"irc needs positive step, steps and fmax, got {step}, {steps} and {fmax}")
    require_choice(directions, ("both", "forward", "backward"), "directions of a path")
    n = len(structure)
    landscape = Landscape(engine, structure)
    full = landscape.hessian(structure.positions) if hessian is None else np.asarray(hessian, dtype=np.float64)
    if full.shape != (n, 3, n, 3):
        raise LabelShapeError(f'structure "{structure.id}": Hessian of shape {full.shape}, expected {(n, 3, n, 3)}')
    modes = normal_modes(structure, full)
    if modes.imaginary == 0:
        raise RequestError(
            f'structure "{structure.id}" has no imaginary mode: no reaction path starts at a minimum. '
            "Find its transition state first (saddle)."
        )
    walk = _Descent(landscape, modes.masses, step, fmax)
    start = walk.model_at(walk.weigh(structure.positions), full.reshape(3 * n, -1))
    largest = walk.point(start, 0).fmax
    if largest > _STATIONARY:
        raise RequestError(
            f'structure "{structure.id}" is not stationary: its largest force is {largest:.3g} eV/Å, expected at most '
            f"{_STATIONARY:g}. Find the transition state of this engine first (saddle)."
        )
    mode = modes.vectors[0].reshape(-1)
    mode = mode * np.sign(mode[np.abs(mode).argmax()])
    halves: dict[str, tuple[tuple[PathPoint, ...], str]] = {}
    for name, sign in (("forward", 1), ("backward", -1)):
        asked = directions in ("both", name)
        halves[name] = walk.down(start, sign * mode, sign, steps) if asked else ((), "not asked")
    return IRCResult(
        walk.point(start, 0),
        halves["forward"][0],
        halves["backward"][0],
        halves["forward"][1],
        halves["backward"][1],
        landscape.gradients,
    )


@dataclass(frozen=True, eq=False)
class _Model:
    """The surface to second order about a point, in mass-weighted coordinates."""

    origin: Float[Array, "d"]
    energy: float
    slope: Float[Array, "d"]
    hessian: Float[Array, "d d"]

    def energy_at(self, q: Float[Array, "d"]) -> float:
        shift = q - self.origin
        return float(self.energy + shift @ self.slope + 0.5 * shift @ self.hessian @ shift)

    def slope_at(self, q: Float[Array, "d"]) -> Float[Array, "d"]:
        return self.slope + self.hessian @ (q - self.origin)


class _Descent:
    """Steps of steepest descent on one landscape."""

    def __init__(self, landscape: Landscape, masses: Float[Array, "n"], step: float, fmax: float) -> None:
        self.landscape, self.step, self.fmax = landscape, step, fmax
        self.root = np.repeat(np.sqrt(masses), 3)

    def weigh(self, positions: Float[Array, "n 3"]) -> Float[Array, "d"]:
        return positions.reshape(-1) * self.root

    def unweigh(self, q: Float[Array, "d"]) -> Float[Array, "n 3"]:
        return (q / self.root).reshape(-1, 3)

    def model_at(self, q: Float[Array, "d"], hessian: Float[Array, "d d"]) -> _Model:
        """The model about `q`, from the engine's energy and gradient and a Cartesian Hessian."""
        energy, gradient = self.landscape.gradient(self.unweigh(q))
        return _Model(q, energy, gradient.reshape(-1) / self.root, hessian / np.outer(self.root, self.root))

    def next_model(self, before: _Model, q: Float[Array, "d"]) -> _Model:
        """The model about `q`, its Hessian updated from the one before."""
        energy, gradient = self.landscape.gradient(self.unweigh(q))
        slope = gradient.reshape(-1) / self.root
        return _Model(q, energy, slope, bofill_update(before.hessian, q - before.origin, slope - before.slope))

    def point(self, model: _Model, count: int) -> PathPoint:
        """The point after `count` steps, which are negative backwards."""
        structure = self.landscape.structure
        moved = structure.moved(self.unweigh(model.origin), id=f"{structure.id}/irc/{count:+05d}")
        forces = -(model.slope * self.root).reshape(-1, 3)
        return PathPoint(moved, model.energy, forces, largest_force(forces), count * self.step)

    def down(
        self, start: _Model, direction: Float[Array, "d"], sign: int, steps: int
    ) -> tuple[tuple[PathPoint, ...], str]:
        """One half of the path, and why it ended."""
        points: list[PathPoint] = []
        here, begin, length = start, start.origin + _START * self.step * direction, (1.0 - _START) * self.step
        for k in range(1, steps + 1):
            predicted = self.next_model(here, _descend(here.slope_at, begin, length))
            corrected = _descend(_between(here, predicted), begin, length)
            after = self.next_model(predicted, corrected)
            if after.energy >= here.energy:
                return tuple(points), "energy rises"
            points.append(self.point(after, sign * k))
            # Near the transition state forces are small too, but there they grow.
            if points[-1].fmax < self.fmax and np.linalg.norm(after.slope) < np.linalg.norm(here.slope):
                return tuple(points), "minimum"
            here, begin, length = after, after.origin, self.step
        return tuple(points), "steps"


def _between(first: _Model, second: _Model) -> Callable[[Float[Array, "d"]], Float[Array, "d"]]:
    """Slope of the surface that interpolates between two models, each weighted by the squared distance to the other's
    origin."""

    def slope(q: Float[Array, "d"]) -> Float[Array, "d"]:
        to_first, to_second = q - first.origin, q - second.origin
        a, b = to_first @ to_first, to_second @ to_second
        total = a + b
        weight = b / total  # of the first model
        change = 2.0 * (a * to_second - b * to_first) / total**2
        gap = first.energy_at(q) - second.energy_at(q)
        return weight * first.slope_at(q) + (1.0 - weight) * second.slope_at(q) + gap * change

    return slope


def _descend(
    slope: Callable[[Float[Array, "d"]], Float[Array, "d"]], start: Float[Array, "d"], length: float
) -> Float[Array, "d"]:
    """Where steepest descent on a model surface is after `length`, or at its floor if that comes first."""

    def downhill(s: float, q: Float[Array, "d"]) -> Float[Array, "d"]:
        gradient = slope(q)
        return -gradient / max(float(np.linalg.norm(gradient)), _STALLED)

    def floor(s: float, q: Float[Array, "d"]) -> float:
        return float(np.linalg.norm(slope(q))) - _STALLED

    floor.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(downhill, (0.0, length), start, rtol=_TOLERANCE, atol=_TOLERANCE * length, events=floor)
    return found.y[:, -1]
