"""Curvature of one structure by differences of its gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from hesse.engines.differences import DirectionalDerivative, central_difference, richardson
from hesse.engines.engine import Point, Surface
from hesse.engines.estimates import OwnErrors
from hesse.engines.surroundings import rates_of_change
from hesse.errors import EngineError
from hesse.structures import Structure

__all__ = ["GradientSlopes", "finite_point"]


def finite_point(surface: Surface, positions: Float[np.ndarray, "n 3"], structure: Structure) -> Point:
    """`surface(positions)`. Raises EngineError when anything in it is not a finite number."""
    point = surface(positions)
    if not (np.isfinite(point.energy) and np.isfinite(point.forces).all()):
        raise EngineError(f'structure "{structure.id}": the engine returned numbers that are not finite')
    return point


class GradientSlopes:
    """Slopes of the gradient (eV/Å) about the structure, where it is `gradient`; `noise` is that of gradients."""

    def __init__(
        self, surface: Surface, structure: Structure, gradient: Float[np.ndarray, "n 3"], noise: float
    ) -> None:
        self.surface, self.structure, self.origin, self.noise = surface, structure, gradient, noise

    def products(
        self, probes: Float[np.ndarray, "k n 3"], step: float, fourth_order: bool
    ) -> tuple[Float[np.ndarray, "k n 3"], OwnErrors]:
        """`H v` for each probe, with a `step` (Å) for the coordinate that moves most."""
        found = [self._along(probe, step, fourth_order) for probe in probes]
        unseen = np.array([one.noise is None for one in found])
        return np.stack([one.value for one in found]), OwnErrors(
            np.array([np.hypot(one.noise or 0.0, one.truncation) for one in found]),
            grid=np.array([one.grid for one in found]),
            hidden=np.where(unseen, self.noise / (np.sqrt(2.0) * step) * np.abs(probes).max((1, 2)), 0.0),
        )

    def hessian(self, step: float, fourth_order: bool) -> tuple[Float[np.ndarray, "n 3 n 3"], OwnErrors]:
        """The symmetrised Hessian from the slopes along every coordinate."""
        n = len(self.structure)
        rows, squares, grid = np.empty((3 * n, 3 * n)), np.empty(3 * n), np.empty(3 * n)
        for c in range(3 * n):
            direction = np.zeros(3 * n)
            direction[c] = 1.0
            found = self._along(direction.reshape(n, 3), step, fourth_order)
            rows[c] = found.value.reshape(-1)
            squares[c], grid[c] = (found.noise or 0.0) ** 2 + found.truncation**2, found.grid
        # Element (i, j) and element (j, i) are measured independently: their difference has twice the variance of
        # either, their mean half of it.
        skew = rows - rows.T
        pairs = max(3 * n * (3 * n - 1), 1)
        asymmetry = np.sqrt(np.sum(skew**2) / pairs) / 2.0
        own = OwnErrors(np.hypot(asymmetry, np.sqrt(squares.mean() / 2.0)), grid=np.sqrt(np.mean(grid**2)))
        return (0.5 * (rows + rows.T)).reshape(n, 3, n, 3), own

    def _along(self, probe: Float[np.ndarray, "n 3"], step: float, fourth_order: bool) -> DirectionalDerivative:
        grid: dict[float, Float[np.ndarray, "n 3"]] = {}

        def gradient(s: float) -> Float[np.ndarray, "n 3"]:
            point = finite_point(self.surface, self.structure.positions + s * probe, self.structure)
            if point.grid_forces is not None:
                grid[s] = point.grid_forces
            return -point.forces

        epsilon = step / float(np.abs(probe).max())
        difference = richardson if fourth_order else central_difference
        found = difference(gradient, self.origin, epsilon, rates_of_change(self.structure, probe))
        if not grid:
            return found
        slope = (grid[epsilon] - grid[-epsilon]) / (2.0 * epsilon)
        return replace(found, grid=float(np.sqrt(np.mean(slope**2))))
