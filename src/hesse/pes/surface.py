"""One structure's potential-energy surface as saddle searches and paths walk it, with a count of what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engines import Engine, ForceEngine
from hesse.engines.force_engine import checked_point
from hesse.structures import Request, Structure

__all__ = ["CountedSurface", "OptimizationHistory", "max_force"]


@dataclass(frozen=True, eq=False)
class OptimizationHistory:
    """Energies (eV) and largest forces (eV/Å) of every geometry a walk came through, the start first."""

    energies: Float[Array, "points"]
    fmax: Float[Array, "points"]

    @classmethod
    def from_points(cls, points: Sequence[tuple[float, float]]) -> OptimizationHistory:
        """From pairs of energy and largest force."""
        energies, largest = zip(*points, strict=True)
        return cls(np.array(energies), np.array(largest))

    def __len__(self) -> int:
        return len(self.energies)


def max_force(gradient: Float[Array, "n 3"]) -> float:
    """Length of the largest force on an atom, eV/Å."""
    return float(np.linalg.norm(gradient, axis=-1).max())


class CountedSurface:
    """Energy (eV), gradient (eV/Å) and Hessian (eV/Å²) at positions of one structure's atoms.

    Attributes:
        gradients, hessians: how many of each were asked of the engine. Engines that take curvature from differences of
            forces need further gradients for Hessians; those are not counted here.
    """

    def __init__(self, engine: Engine, structure: Structure) -> None:
        self.engine, self.structure = engine, structure
        self.n_gradients = self.n_hessians = 0
        # Points of a force engine need none of the checks that labels get.
        self._energy_function = engine.energy_function(structure) if isinstance(engine, ForceEngine) else None

    def structure_at(self, positions: Float[Array, "n 3"]) -> Structure:
        """The structure there, under the same id."""
        return self.structure.with_positions(positions, id=self.structure.id)

    def gradient(self, positions: Float[Array, "n 3"]) -> tuple[float, Float[Array, "n 3"]]:
        """Energy and its gradient.

        Raises:
            GeometryError: atoms on top of each other; EngineError: from the engine, or numbers that are not finite.
        """
        self.n_gradients += 1
        structure = self.structure_at(positions)
        structure.check_no_overlap()
        if self._energy_function is not None:
            point = checked_point(self._energy_function, positions, structure)
            return point.energy, -point.forces
        labels = self.engine.compute(structure, Request(energy=True, forces=True))
        assert labels.energy is not None
        assert labels.forces is not None
        return float(labels.energy[0]), -labels.forces.numpy()

    def hessian(self, positions: Float[Array, "n 3"]) -> Float[Array, "n 3 n 3"]:
        """The full Hessian."""
        self.n_hessians += 1
        return (
            self.engine.compute(self.structure_at(positions), Request(energy=False, hessian=True)).hessian_of(0).numpy()
        )


# MERGED DOCSTRING (fold into the module docstring): """How a walk to a stationary point went."""
