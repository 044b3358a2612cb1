"""One structure's potential-energy surface as saddle searches and paths walk it, with a count of what was asked."""

from __future__ import annotations

from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engines import Engine, ForceEngine
from hesse.engines.slopes import finite_point
from hesse.structures import Request, Structure

__all__ = ["Landscape"]


class Landscape:
    """Energy (eV), gradient (eV/Å) and Hessian (eV/Å²) at positions of one structure's atoms.

    Attributes:
        gradients, hessians: how many of each were asked of the engine. Engines that take curvature from differences of
            forces need further gradients for Hessians; those are not counted here.
    """

    def __init__(self, engine: Engine, structure: Structure) -> None:
        self.engine, self.structure = engine, structure
        self.gradients = self.hessians = 0
        # Points of a force engine need none of the checks that labels get.
        self._surface = engine.surface(structure) if isinstance(engine, ForceEngine) else None

    def at(self, positions: Float[Array, "n 3"]) -> Structure:
        """The structure there, under the same id."""
        return self.structure.moved(positions, id=self.structure.id)

    def gradient(self, positions: Float[Array, "n 3"]) -> tuple[float, Float[Array, "n 3"]]:
        """Energy and its gradient.

        Raises:
            GeometryError: atoms on top of each other; EngineError: from the engine, or numbers that are not finite.
        """
        self.gradients += 1
        here = self.at(positions)
        here.require_separated_atoms()
        if self._surface is not None:
            point = finite_point(self._surface, positions, here)
            return point.energy, -point.forces
        labels = self.engine.compute(here, Request(energy=True, forces=True))
        assert labels.energy is not None
        assert labels.forces is not None
        return float(labels.energy[0]), -labels.forces.numpy()

    def hessian(self, positions: Float[Array, "n 3"]) -> Float[Array, "n 3 n 3"]:
        """The full Hessian."""
        self.hessians += 1
        return self.engine.compute(self.at(positions), Request(energy=False, hessian=True)).hessian_of(0).numpy()
