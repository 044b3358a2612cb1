"""Curvature of one structure by differences of its gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from hesse.engines.differences import DirectionalDerivative, central_difference, richardson
from hesse.engines.engine import SinglePoint, EnergyFunction
from hesse.engines.estimates import CurvatureErrors
from hesse.engines.surroundings import relative_motion
from hesse.errors import EngineError
from hesse.structures import Structure

__all__ = ["FiniteDifferenceCurvature", "checked_point"]


def checked_point(energy_function: EnergyFunction, positions: Float[np.ndarray, "n 3"], structure: Structure) -> SinglePoint:
    """`surface(positions)`. Raises EngineError when anything in it is not a finite number."""
    point = energy_function(positions)
    if not (np.isfinite(point.energy) and np.isfinite(point.forces).all()):
        raise EngineError(f'structure "{structure.id}": the engine returned numbers that are not finite')
    return point


class FiniteDifferenceCurvature:
    """Slopes of the gradient (eV/Å) about the structure, where it is `gradient`; `noise` is that of gradients."""

    def __init__(
        self, energy_function: EnergyFunction, structure: Structure, gradient: Float[np.ndarray, "n 3"], noise: float
    ) -> None:
        self.energy_function, self.structure, self.origin, self.noise = energy_function, structure, gradient, noise

    def hvp(
        self, probes: Float[np.ndarray, "k n 3"], step: float, fourth_order: bool
    ) -> tuple[Float[np.ndarray, "k n 3"], CurvatureErrors]:
        """`H v` for each probe, with a `step` (Å) for the coordinate that moves most."""
        derivatives = [self._directional_derivative(probe, step, fourth_order) for probe in probes]
        noise_unknown = np.array([one.noise is None for one in derivatives])
        return np.stack([one.value for one in derivatives]), CurvatureErrors(
            np.array([np.hypot(one.noise or 0.0, one.truncation) for one in derivatives]),
            grid=np.array([one.grid for one in derivatives]),
            invisible_noise=np.where(noise_unknown, self.noise / (np.sqrt(2.0) * step) * np.abs(probes).max((1, 2)), 0.0),
        )

    def hessian(self, step: float, fourth_order: bool) -> tuple[Float[np.ndarray, "n 3 n 3"], CurvatureErrors]:
        """The symmetrised Hessian from the slopes along every coordinate."""
        n = len(self.structure)
        rows, squares, grid = np.empty((3 * n, 3 * n)), np.empty(3 * n), np.empty(3 * n)
        for c in range(3 * n):
            direction = np.zeros(3 * n)
            direction[c] = 1.0
            derivative = self._directional_derivative(direction.reshape(n, 3), step, fourth_order)
            rows[c] = derivative.value.reshape(-1)
            squares[c], grid[c] = (derivative.noise or 0.0) ** 2 + derivative.truncation**2, derivative.grid
        # Element (i, j) and element (j, i) are measured independently: their difference has twice the variance of
        # either, their mean half of it.
        skew = rows - rows.T
        pairs = max(3 * n * (3 * n - 1), 1)
        asymmetry = np.sqrt(np.sum(skew**2) / pairs) / 2.0
        errors = CurvatureErrors(np.hypot(asymmetry, np.sqrt(squares.mean() / 2.0)), grid=np.sqrt(np.mean(grid**2)))
        return (0.5 * (rows + rows.T)).reshape(n, 3, n, 3), errors

    def _directional_derivative(self, probe: Float[np.ndarray, "n 3"], step: float, fourth_order: bool) -> DirectionalDerivative:
        grid_forces: dict[float, Float[np.ndarray, "n 3"]] = {}

        def gradient(s: float) -> Float[np.ndarray, "n 3"]:
            point = checked_point(self.energy_function, self.structure.positions + s * probe, self.structure)
            if point.grid_forces is not None:
                grid_forces[s] = point.grid_forces
            return -point.forces

        epsilon = step / float(np.abs(probe).max())
        difference = richardson if fourth_order else central_difference
        derivative = difference(gradient, self.origin, epsilon, relative_motion(self.structure, probe))
        if not grid_forces:
            return derivative
        grid_derivative = (grid_forces[epsilon] - grid_forces[-epsilon]) / (2.0 * epsilon)
        return replace(derivative, grid=float(np.sqrt(np.mean(grid_derivative**2))))
