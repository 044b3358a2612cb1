"""Hessian-vector products and Hessians of any source of forces, by finite differences, with an error estimate each."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float

from hesse.datasets.io import StructuresLike, as_structure
from hesse.engine import ENERGY_AND_FORCES, EnergyFunction, Engine, SinglePoint
from hesse.engines.error_estimates import CurvatureErrors, attach_error_estimates
from hesse.engines.finite_differences import (
    DirectionalDerivative,
    OuterPoints,
    central_difference,
    choose_step,
    relative_motion,
    richardson,
)
from hesse.errors import ConfigError, EngineError, GeometryError, LabelShapeError, RequestError
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Request, Structure, check_cell, check_request

__all__ = [
    "DEFAULT_GRADIENT_NOISE",
    "AnalyticDerivatives",
    "FiniteDifferenceCurvature",
    "FiniteDifferences",
    "ForceEngine",
    "checked_point",
]


def checked_point(
    energy_function: EnergyFunction, positions: Float[np.ndarray, "n 3"], structure: Structure
) -> SinglePoint:
    """Evaluate the energy function and check that its results are finite.

    Args:
        energy_function: energy and forces as a function of positions.
        positions: Å, `[n, 3]`.
        structure: the structure, for messages.

    Returns:
        Energy (eV) and forces (eV/Å) at `positions`.

    Raises:
        EngineError: the energy or a force is NaN or infinite.
    """
    point = energy_function(positions)
    if not (np.isfinite(point.energy) and np.isfinite(point.forces).all()):
        raise EngineError(f'structure "{structure.id}": the engine returned numbers that are not finite')
    return point


class FiniteDifferenceCurvature:
    """Curvature at one structure from differences of gradients.

    Crystals have no rotational sum rule that would reveal an error. There the truncation of a Hessian is measured with
    two further gradients each at up to six coordinates (a quarter of all at most, but one per element), and that of a
    product with two further gradients where the symmetry of the crystal hides it.

    Args:
        energy_function: energy and forces as a function of positions.
        structure: the structure at which the curvature is taken.
        gradient: the gradient there, eV/Å, `[n, 3]`.
        noise: noise of the gradients, eV/Å per component.
    """

    def __init__(
        self, energy_function: EnergyFunction, structure: Structure, gradient: Float[np.ndarray, "n 3"], noise: float
    ) -> None:
        self.energy_function, self.structure, self.origin, self.noise = energy_function, structure, gradient, noise

    def hvp(
        self, probes: Float[np.ndarray, "k n 3"], step: float, fourth_order: bool
    ) -> tuple[Float[np.ndarray, "k n 3"], CurvatureErrors]:
        """Hessian-vector products by finite differences.

        Args:
            probes: directions, `[k, n, 3]`.
            step: displacement of the coordinate that moves most, Å.
            fourth_order: Richardson's combination of two steps, with twice as many gradients.

        Returns:
            `H v` for each probe, eV/Å² times the unit of the probe, `[k, n, 3]`; and the estimated errors of each.
        """
        outer_points: OuterPoints = "symmetry" if self.structure.periodic else "never"
        derivatives = [self._directional_derivative(probe, step, fourth_order, outer_points) for probe in probes]
        noise_unknown = np.array([d.noise is None for d in derivatives])
        return np.stack([d.value for d in derivatives]), CurvatureErrors(
            np.array([np.hypot(d.noise or 0.0, d.truncation) for d in derivatives]),
            grid=np.array([d.grid for d in derivatives]),
            invisible_noise=np.where(
                noise_unknown, self.noise / (np.sqrt(2.0) * step) * np.abs(probes).max((1, 2)), 0.0
            ),
        )

    def hessian(self, step: float, fourth_order: bool) -> tuple[Float[np.ndarray, "n 3 n 3"], CurvatureErrors]:
        """The Hessian by finite differences along every coordinate, symmetrized.

        Args:
            step: displacement of each coordinate, Å.
            fourth_order: Richardson's combination of two steps, with twice as many gradients.

        Returns:
            The Hessian, eV/Å², `[n, 3, n, 3]`, and its estimated errors.
        """
        n = len(self.structure)
        rows, squares, grid = np.empty((3 * n, 3 * n)), np.empty(3 * n), np.empty(3 * n)
        measured, weights = {}, _coordinates_to_measure(self.structure) if self.structure.periodic else {}
        for c in range(3 * n):
            direction = np.zeros(3 * n)
            direction[c] = 1.0
            derivative = self._directional_derivative(
                direction.reshape(n, 3), step, fourth_order, "always" if c in weights else "never"
            )
            if derivative.measured is not None:
                measured[c] = derivative.measured**2
            rows[c] = derivative.value.reshape(-1)
            squares[c], grid[c] = (derivative.noise or 0.0) ** 2 + derivative.truncation**2, derivative.grid
        # Elements (i, j) and (j, i) come from independent differences: their difference has twice the variance of
        # each, their mean half of it.
        skew = rows - rows.T
        pairs = max(3 * n * (3 * n - 1), 1)
        asymmetry = np.sqrt(np.sum(skew**2) / pairs) / 2.0
        method = np.hypot(asymmetry, np.sqrt(squares.mean() / 2.0))
        if measured:
            # Truncation of both elements of a pair is about the same: their mean does not reduce it.
            method = max(method, np.sqrt(sum(weights[c] * square for c, square in measured.items())))
        errors = CurvatureErrors(method, grid=np.sqrt(np.mean(grid**2)))
        return (0.5 * (rows + rows.T)).reshape(n, 3, n, 3), errors

    def _directional_derivative(
        self, probe: Float[np.ndarray, "n 3"], step: float, fourth_order: bool, outer_points: OuterPoints
    ) -> DirectionalDerivative:
        grid_forces: dict[float, Float[np.ndarray, "n 3"]] = {}

        def gradient(s: float) -> Float[np.ndarray, "n 3"]:
            point = checked_point(self.energy_function, self.structure.positions + s * probe, self.structure)
            if point.grid_forces is not None:
                grid_forces[s] = point.grid_forces
            return -point.forces

        epsilon = step / float(np.abs(probe).max())
        difference = richardson if fourth_order else central_difference
        rates = relative_motion(self.structure, probe)
        derivative = difference(gradient, self.origin, epsilon, rates, outer_points)
        if not grid_forces:
            return derivative
        grid_derivative = (grid_forces[epsilon] - grid_forces[-epsilon]) / (2.0 * epsilon)
        return replace(derivative, grid=float(np.sqrt(np.mean(grid_derivative**2))))


_MAX_MEASURED = 6
"""Number of coordinates at which the truncation of the Hessian of a crystal is measured (at least one per element)."""


def _coordinates_to_measure(structure: Structure) -> dict[int, float]:
    """Coordinates spread over the elements, and the weight of each in a mean over all coordinates."""
    n = len(structure)
    order = np.random.default_rng(n).permutation(n)
    by_element = [order[structure.numbers[order] == z] for z in np.unique(structure.numbers)]
    rounds = max(min(_MAX_MEASURED, (3 * n + 3) // 4) // len(by_element), 1)
    weights: dict[int, float] = {}
    for atoms in by_element:
        # The axis changes from atom to atom; atoms come again, with another axis, where there are few.
        chosen = {3 * int(atoms[k % len(atoms)]) + (k + k // len(atoms)) % 3 for k in range(rounds)}
        weights |= dict.fromkeys(chosen, len(atoms) / n / len(chosen))
    return weights


DEFAULT_GRADIENT_NOISE = 1e-6
"""eV/Å; noise of gradients where an engine does not state it: that of a tightly converged self-consistent program."""


@dataclass(frozen=True)
class FiniteDifferences:
    """Settings of finite differences.

    Attributes:
        step: Å; the largest Cartesian displacement of an atom at the inner points (twice that at the outer ones). None
            chooses it from the noise of the engine's gradients, see `hesse.engines.finite_differences`.
        richardson: fourth-order Hessian-vector products, from four gradients each instead of two.
        hessian_richardson: fourth-order Hessians, from four gradients per coordinate instead of two.

    Raises:
        ConfigError: a step that is not a positive number below 0.1 Å.
    """

    step: float | None = None
    richardson: bool = False
    hessian_richardson: bool = False

    def __post_init__(self) -> None:
        if self.step is not None and not (np.isfinite(self.step) and 0 < self.step < 0.1):
            raise ConfigError(f"the step of finite differences must lie between 0 and 0.1 Å, got {self.step}")

    def step_for(self, noise: float, fourth_order: bool) -> float:
        """The step of differences.

        Args:
            noise: noise of the gradients, eV/Å.
            fourth_order: whether the step is for Richardson's combination.

        Returns:
            `step` where it is set, otherwise the one chosen for this noise, Å.
        """
        return choose_step(noise, fourth_order) if self.step is None else self.step

    def settings(
        self, noise: float = DEFAULT_GRADIENT_NOISE, *, hvp: bool = True, hessian: bool = True
    ) -> dict[str, str]:
        """Steps and orders as text, to be stored with labels.

        Args:
            noise: noise of the gradients, eV/Å.
            hvp: whether Hessian-vector products come from differences.
            hessian: whether Hessians come from differences.

        Returns:
            The entries `step`, `differences`, `hessian_step` and `hessian_differences`, where they apply.
        """
        settings = {}
        if hvp:
            settings["step"] = f"{self.step_for(noise, self.richardson):g}"
            settings["differences"] = "richardson" if self.richardson else "central"
        if hessian:
            settings["hessian_step"] = f"{self.step_for(noise, self.hessian_richardson):g}"
            settings["hessian_differences"] = "richardson" if self.hessian_richardson else "central"
        return settings


@dataclass(frozen=True, eq=False, repr=False)
class AnalyticDerivatives(ShortRepr):
    """Second derivatives that a program computes itself; those that are None come from finite differences.

    Attributes:
        hvp: Hessian-vector products, eV/Å² times the unit of the probes, `[k, n, 3]`.
        hessian: eV/Å², `[n, 3, n, 3]`.
        error: eV/Å²; error left by the program's convergence thresholds, in addition to what the sum rules reveal.
    """

    hvp: Float[np.ndarray, "k n 3"] | None = None
    hessian: Float[np.ndarray, "n 3 n 3"] | None = None
    error: float = 0.0


class ForceEngine(Engine):
    """An engine whose program computes energies and forces; curvature comes from differences of forces.

    A Hessian-vector product takes two gradients (four with Richardson) besides the one at the structure itself; a
    Hessian takes two per coordinate and is symmetrized. Errors are estimated from the same gradients and from the sum
    rules of `hesse.datasets.quality.sum_rules`; see `hesse.engines.finite_differences`.

    To add a program, implement `energy_function` and set `name`, `level`, `settings`, `differences` and, where it is
    known, `gradient_noise`.

    Attributes:
        differences: how curvature is taken from forces.
        gradient_noise: eV/Å per component; noise of the gradients (`estimate_gradient_noise` measures it). It
            determines the step.
    """

    differences: FiniteDifferences
    gradient_noise: float = DEFAULT_GRADIENT_NOISE

    @abstractmethod
    def energy_function(self, structure: Structure) -> EnergyFunction:
        """Energy and forces as a function of positions, for species, cell, charge and multiplicity of a structure.

        Args:
            structure: the structure.

        Returns:
            A function of positions (Å, `[n, 3]`) that returns a `SinglePoint` and raises EngineError where the program
            fails.
        """

    def analytic_derivatives(
        self, structure: Structure, energy_function: EnergyFunction, request: Request
    ) -> AnalyticDerivatives:
        """Second derivatives that the program computes itself. By default there are none; engines may override this
        method.

        Args:
            structure: the structure.
            energy_function: that of `energy_function(structure)`.
            request: the requested properties.

        Returns:
            The analytic derivatives; those that are None are taken by finite differences.
        """
        return AnalyticDerivatives()

    @final
    def compute(self, structure: StructuresLike, request: Request = ENERGY_AND_FORCES) -> Properties:
        """See `Engine.compute`. Atomic energies are not available. ASE Atoms are accepted too."""
        structure = as_structure(structure)
        check_request(request)
        if request.outputs:
            names = ", ".join(sorted(request.outputs))
            raise RequestError(f"{self.level} gives energies and their derivatives only: leave out {names}")
        if request.atomic_energies:
            raise RequestError(f"{self.level} has no atomic energies; only potentials do")
        if request.stress and not all(structure.pbc):
            raise GeometryError(f'structure "{structure.id}": stress needs a cell periodic in all three directions')
        probes = _checked_probes(structure, request)
        check_cell(structure)
        structure.check_no_overlap()
        energy_function = self.energy_function(structure)
        point = checked_point(energy_function, structure.positions, structure)
        if request.stress and point.stress is None:
            raise RequestError(f"{self.level} ({self.name}) has no stress")
        analytic = self.analytic_derivatives(structure, energy_function, request)
        hvp, hessian = analytic.hvp, analytic.hessian
        hvp_errors = hessian_errors = CurvatureErrors(analytic.error)
        curvature = FiniteDifferenceCurvature(energy_function, structure, -point.forces, self.gradient_noise)
        if hvp is None and len(probes):
            step = self.differences.step_for(self.gradient_noise, self.differences.richardson)
            hvp, hvp_errors = curvature.hvp(probes, step, self.differences.richardson)
        if hessian is None and request.hessian:
            step = self.differences.step_for(self.gradient_noise, self.differences.hessian_richardson)
            hessian, hessian_errors = curvature.hessian(step, self.differences.hessian_richardson)
        for name, value in (("product", hvp), ("Hessian", hessian)):
            if value is not None and not np.isfinite(value).all():
                raise EngineError(f'structure "{structure.id}": {self.level} gave a {name} that is not finite')
        properties = Properties.single(
            len(structure),
            energy=point.energy if request.energy else None,
            forces=point.forces,
            probes=probes if len(probes) else None,
            hvp=hvp if len(probes) else None,
            hessian=hessian,
            stress=point.stress if request.stress else None,
            structure_id=structure.id,
        )
        return attach_error_estimates(
            structure, properties, request, hvp_errors=hvp_errors, hessian_errors=hessian_errors
        )


def _checked_probes(structure: Structure, request: Request) -> Float[np.ndarray, "k n 3"]:
    n = len(structure)
    if request.probes is None:
        return np.zeros((0, n, 3))
    probes = request.probes.detach().cpu().to(torch.float64).numpy()
    if probes.ndim != 3 or probes.shape[1:] != (n, 3):
        raise LabelShapeError(f'structure "{structure.id}": probes of shape {probes.shape}, expected [k, {n}, 3]')
    if not np.isfinite(probes).all() or (len(probes) and not np.abs(probes).max((1, 2)).min() > 0):
        raise RequestError(f'structure "{structure.id}": a probe is zero or not finite; it has no direction')
    return probes
