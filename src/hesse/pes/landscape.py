"""One structure's potential-energy surface as saddle searches and paths walk it, with a count of what was asked."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engines import Engine, ForceEngine
from hesse.errors import EngineError
from hesse.structures import Request, Structure

__all__ = ["Landscape", "largest_force"]


class Landscape:
    """Energy (eV), gradient (eV/Å), Hessian-vector products and Hessian (eV/Å²) at positions of one structure's atoms.

    Attributes:
        gradients, products, hessians: how many of each were asked of the engine. Engines that take curvature from
            differences of forces need further gradients for products and Hessians; those are not counted here.
    """

    def __init__(self, engine: Engine, structure: Structure) -> None:
        self.engine, self.structure = engine, structure
        self.gradients = self.products = self.hessians = 0
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
            point = self._surface(positions)
            energy, gradient = point.energy, -point.forces
        else:
            labels = self.engine.compute(here, Request(energy=True, forces=True))
            assert labels.energy is not None
            assert labels.forces is not None
            energy, gradient = float(labels.energy[0]), -labels.forces.numpy()
        if not (np.isfinite(energy) and np.isfinite(gradient).all()):
            raise EngineError(f'structure "{here.id}": the engine returned numbers that are not finite')
        return energy, gradient

    def product(self, positions: Float[Array, "n 3"], direction: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """`H v`, eV/Å² times the unit of `direction`."""
        self.products += 1
        probe = torch.from_numpy(np.ascontiguousarray(direction)).to(torch.float64)[None]
        labels = self.engine.compute(self.at(positions), Request(energy=False, probes=probe))
        assert labels.hvp is not None
        return labels.hvp[0].numpy()

    def hessian(self, positions: Float[Array, "n 3"]) -> Float[Array, "n 3 n 3"]:
        """The full Hessian."""
        self.hessians += 1
        return self.engine.compute(self.at(positions), Request(energy=False, hessian=True)).hessian_of(0).numpy()


def largest_force(gradient: Float[Array, "n 3"]) -> float:
    """Length of the largest force on an atom, eV/Å."""
    return float(np.linalg.norm(gradient, axis=-1).max())
