"""The intrinsic reaction coordinate: the path of steepest descent from a transition state, in mass-weighted coordinates
(Fukui, Acc. Chem. Res. 14, 363 (1981)).

The integrator is the predictor-corrector scheme of Hratchian and Schlegel (J. Chem. Phys. 120, 9918 (2004); JCTC 1, 61
(2005)): the predictor follows steepest descent on the local quadratic model for one step; with energy and gradient at
its end, the corrector follows it again from the same start on a surface that interpolates between the two quadratic
models. The Hessian is that of the engine at the transition state and is updated along the path. Each step takes two
gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineLike, as_engine
from hesse.errors import ConfigError, RequestError, check_choice, check_numbers, check_whole_numbers
from hesse.harmonic.normal_modes import normal_modes
from hesse.pes.quasi_newton import bofill_update
from hesse.pes.surface import CountedSurface, atoms_with_results, max_force
from hesse.pes.training_range import extrapolation, warn_if_outside
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation, Structure, hessian_array

__all__ = ["IRCResult", "PathPoint", "irc"]

_FIRST_STEP_FRACTION = 0.1
"""Fraction of the first step that is taken along the reaction mode; the rest follows steepest descent."""
_TOLERANCE = 1e-5
"""Relative tolerance of the integration on model surfaces, far below the error of the models."""
_MAX_STATIONARY_FORCE = 0.1
"""eV/Å; a structure with larger forces is not accepted as a transition state."""
_FLAT = 1e-6
"""√u eV/Å per √u; a model surface is flat where its mass-weighted gradient falls below this."""


@dataclass(frozen=True, eq=False, repr=False)
class PathPoint(ShortRepr):
    """One point of a path.

    Attributes:
        structure: the geometry; on a path from a transition state its id is `{start}/irc/+0012` (the number of steps),
            tag and group are those of the transition state.
        energy: eV.
        forces: eV/Å, `[n, 3]`.
        fmax: largest force on an atom, eV/Å.
        path_length: length of the path from the transition state (negative on the backward side), or from the reactant
            of an elastic band, Å √u.
    """

    structure: Structure
    energy: float
    forces: Float[Array, "n 3"]
    fmax: float
    path_length: float

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The geometry, whose calculator holds energy (eV) and forces (eV/Å); `atoms.info["path_length"]` is in Å √u.
        """
        atoms = atoms_with_results(self.structure, self.energy, self.forces)
        atoms.info["path_length"] = self.path_length
        return atoms


@dataclass(frozen=True, eq=False, repr=False)
class IRCResult(ShortRepr):
    """Both halves of a path, from the transition state outwards.

    Attributes:
        saddle: the transition state.
        forward: points in the direction of the reaction mode, whose sign makes its largest component positive.
        backward: points in the opposite direction.
        forward_end: reason of the end of the forward half: "minimum" (forces below the limit), "energy rises" (the
            minimum was passed within one step), "steps" (the limit of steps was reached) or "not asked" (the half was
            not requested).
        backward_end: the same for the backward half.
        n_gradients: number of gradients computed.
        extrapolation: how far the path is from the training data of a model, at the point where it is farthest; None
            for other engines, and for models that keep no summary of them.
    """

    saddle: PathPoint
    forward: tuple[PathPoint, ...]
    backward: tuple[PathPoint, ...]
    forward_end: str
    backward_end: str
    n_gradients: int
    extrapolation: Extrapolation | None = None

    @property
    def points(self) -> tuple[PathPoint, ...]:
        """The whole path, from the backward end over the transition state to the forward end."""
        return (*reversed(self.backward), self.saddle, *self.forward)

    @property
    def converged(self) -> bool:
        """Whether every requested half left the transition state and reached a minimum."""
        halves = ((self.forward, self.forward_end), (self.backward, self.backward_end))
        return all(end == "not asked" or (points and end != "steps") for points, end in halves)

    def to_ase(self) -> list[Atoms]:
        """Convert the whole path to ASE.

        Returns:
            The geometries from the backward to the forward end, with energies (eV) and forces (eV/Å).
        """
        return [point.to_ase() for point in self.points]


def irc(
    structure: StructuresLike,
    engine: EngineLike,
    *,
    hessian: ArrayLike | None = None,
    step: float = 0.1,
    steps: int = 200,
    fmax: float = 0.02,
    directions: Literal["both", "forward", "backward"] = "both",
) -> IRCResult:
    """Follow the reaction path from a transition state down both sides.

    Args:
        structure: a first-order saddle point, as from `saddle`: its result, ASE Atoms, a Structure, or the path of a
            file with one structure.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        hessian: the Hessian at `structure`, eV/Å², `[n, 3, n, 3]`; None computes it.
        step: length of a step along the path, Å √u. Errors fall with its square or faster.
        steps: maximal number of steps per direction.
        fmax: a half ends when no force exceeds this, eV/Å. The ends are near minima but not relaxed: see `minimize`.
        directions: the halves to follow: "both", "forward" or "backward".

    Returns:
        The points of both halves, and why each ended.

    Raises:
        ConfigError: `step`, `steps` or `fmax` is not positive.
        UnknownOptionError: an unknown direction.
        RequestError: the structure is not a transition state (forces above 0.1 eV/Å, or no imaginary mode); not one
            structure, or not an engine.
        LabelShapeError, LabelValueError: the Hessian has a wrong shape, or is not finite.
        EngineError: the engine failed.
        GeometryError: atoms collided.
    """
    structure, engine = as_structure(structure), as_engine(engine)
    check_numbers(step=step, fmax=fmax)
    check_whole_numbers(steps=steps)
    if not (np.isfinite(step) and step > 0 and np.isfinite(fmax) and fmax > 0) or steps < 1:
        raise ConfigError(f"irc needs positive step, steps and fmax, got {step}, {steps} and {fmax}")
    check_choice(directions, ("both", "forward", "backward"), "directions of a path")
    n = len(structure)
    surface = CountedSurface(engine, structure)
    full_hessian = surface.hessian(structure.positions) if hessian is None else hessian_array(structure, hessian)
    modes = normal_modes(structure, full_hessian)
    if modes.n_imaginary == 0:
        raise RequestError(
            f'structure "{structure.id}" has no imaginary mode: no reaction path starts at a minimum. '
            "Find its transition state first (saddle)."
        )
    follower = _IRCFollower(surface, modes.masses, step, fmax)
    start = follower.model_at(follower.mass_weight(structure.positions), full_hessian.reshape(3 * n, -1))
    largest = follower.path_point(start, 0).fmax
    if largest > _MAX_STATIONARY_FORCE:
        raise RequestError(
            f'structure "{structure.id}" is not stationary: its largest force is {largest:.3g} eV/Å, expected at most '
            f"{_MAX_STATIONARY_FORCE:g}. Find the transition state of this engine first (saddle)."
        )
    mode = modes.vectors[0].reshape(-1)
    mode = mode * np.sign(mode[np.abs(mode).argmax()])
    halves: dict[str, tuple[tuple[PathPoint, ...], str]] = {}
    for name, sign in (("forward", 1), ("backward", -1)):
        requested = directions in ("both", name)
        halves[name] = follower.follow(start, sign * mode, sign, steps) if requested else ((), "not asked")
    path_points = [follower.path_point(start, 0), *halves["forward"][0], *halves["backward"][0]]
    outside = extrapolation(engine, *(point.structure for point in path_points))
    warn_if_outside(outside, f'structure "{structure.id}": a part of the path')
    return IRCResult(
        path_points[0],
        halves["forward"][0],
        halves["backward"][0],
        halves["forward"][1],
        halves["backward"][1],
        surface.n_gradients,
        outside,
    )


@dataclass(frozen=True, eq=False)
class _QuadraticModel:
    """The surface to second order about a point, in mass-weighted coordinates."""

    origin: Float[Array, "d"]
    energy: float
    gradient: Float[Array, "d"]
    hessian: Float[Array, "d d"]

    def energy_at(self, q: Float[Array, "d"]) -> float:
        shift = q - self.origin
        return float(self.energy + shift @ self.gradient + 0.5 * shift @ self.hessian @ shift)

    def gradient_at(self, q: Float[Array, "d"]) -> Float[Array, "d"]:
        return self.gradient + self.hessian @ (q - self.origin)


class _IRCFollower:
    """Steps of steepest descent on one surface, in mass-weighted coordinates."""

    def __init__(self, surface: CountedSurface, masses: Float[Array, "n"], step: float, fmax: float) -> None:
        self.surface, self.step, self.fmax = surface, step, fmax
        self.sqrt_masses = np.repeat(np.sqrt(masses), 3)

    def mass_weight(self, positions: Float[Array, "n 3"]) -> Float[Array, "d"]:
        return positions.reshape(-1) * self.sqrt_masses

    def to_cartesian(self, q: Float[Array, "d"]) -> Float[Array, "n 3"]:
        return (q / self.sqrt_masses).reshape(-1, 3)

    def model_at(self, q: Float[Array, "d"], hessian: Float[Array, "d d"]) -> _QuadraticModel:
        """The model about `q`, from the engine's energy and gradient and a Cartesian Hessian."""
        energy, gradient = self.surface.gradient(self.to_cartesian(q))
        return _QuadraticModel(
            q, energy, gradient.reshape(-1) / self.sqrt_masses, hessian / np.outer(self.sqrt_masses, self.sqrt_masses)
        )

    def next_model(self, previous: _QuadraticModel, q: Float[Array, "d"]) -> _QuadraticModel:
        """The model about `q`, with a Hessian updated from the previous model."""
        energy, gradient = self.surface.gradient(self.to_cartesian(q))
        weighted_gradient = gradient.reshape(-1) / self.sqrt_masses
        return _QuadraticModel(
            q,
            energy,
            weighted_gradient,
            bofill_update(previous.hessian, q - previous.origin, weighted_gradient - previous.gradient),
        )

    def path_point(self, model: _QuadraticModel, count: int) -> PathPoint:
        """The point after `count` steps; backward steps are negative."""
        structure = self.surface.structure
        moved = structure.with_positions(self.to_cartesian(model.origin), id=f"{structure.id}/irc/{count:+05d}")
        forces = -(model.gradient * self.sqrt_masses).reshape(-1, 3)
        return PathPoint(moved, model.energy, forces, max_force(forces), count * self.step)

    def follow(
        self, start: _QuadraticModel, direction: Float[Array, "d"], sign: int, steps: int
    ) -> tuple[tuple[PathPoint, ...], str]:
        """The points of one half of the path, and the reason of its end."""
        points: list[PathPoint] = []
        current, origin, length = (
            start,
            start.origin + _FIRST_STEP_FRACTION * self.step * direction,
            (1.0 - _FIRST_STEP_FRACTION) * self.step,
        )
        for k in range(1, steps + 1):
            predicted = self.next_model(current, _steepest_descent(current.gradient_at, origin, length))
            corrected = _steepest_descent(_interpolated_gradient(current, predicted), origin, length)
            following = self.next_model(predicted, corrected)
            if following.energy >= current.energy:
                return tuple(points), "energy rises"
            points.append(self.path_point(following, sign * k))
            # Forces are small near the transition state too, but there they grow from step to step.
            if points[-1].fmax < self.fmax and np.linalg.norm(following.gradient) < np.linalg.norm(current.gradient):
                return tuple(points), "minimum"
            current, origin, length = following, following.origin, self.step
        return tuple(points), "steps"


def _interpolated_gradient(
    first: _QuadraticModel, second: _QuadraticModel
) -> Callable[[Float[Array, "d"]], Float[Array, "d"]]:
    """Gradient of the surface that interpolates between two models, each weighted by the squared distance from the
    origin of the other."""

    def gradient(q: Float[Array, "d"]) -> Float[Array, "d"]:
        to_first, to_second = q - first.origin, q - second.origin
        a, b = to_first @ to_first, to_second @ to_second
        total = a + b
        weight = b / total  # of the first model
        change = 2.0 * (a * to_second - b * to_first) / total**2
        gap = first.energy_at(q) - second.energy_at(q)
        return weight * first.gradient_at(q) + (1.0 - weight) * second.gradient_at(q) + gap * change

    return gradient


def _steepest_descent(
    gradient_at: Callable[[Float[Array, "d"]], Float[Array, "d"]], start: Float[Array, "d"], length: float
) -> Float[Array, "d"]:
    """End point of steepest descent on a model surface after `length`, or at its minimum if that comes first."""
    from scipy.integrate import solve_ivp

    def downhill(s: float, q: Float[Array, "d"]) -> Float[Array, "d"]:
        gradient = gradient_at(q)
        return -gradient / max(float(np.linalg.norm(gradient)), _FLAT)

    def flatness(s: float, q: Float[Array, "d"]) -> float:
        return float(np.linalg.norm(gradient_at(q))) - _FLAT

    flatness.terminal = True  # type: ignore[attr-defined]
    solution = solve_ivp(downhill, (0.0, length), start, rtol=_TOLERANCE, atol=_TOLERANCE * length, events=flatness)
    return solution.y[:, -1]
