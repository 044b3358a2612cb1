"""The contract of engines: energies and derivatives of one structure.

Also the smaller contract from which most engines are built: a function from positions to energy and forces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Request, Structure

__all__ = ["ENERGY_AND_FORCES", "EnergyFunction", "Engine", "SinglePoint"]

ENERGY_AND_FORCES = Request(forces=True)
"""The properties that an engine computes where none are requested."""


class Engine(ABC):
    """Anything that computes energy, forces, Hessian-vector products and Hessians of one structure.

    Attributes:
        name: the program or method, as on the command line ("gfn2").
        level: level of theory ("GFN2-xTB"). Labels of different levels must not be mixed.
        settings: everything else that changes the numbers (accuracy, step, ...). It is stored with the labels.
    """

    name: str
    level: str
    settings: Mapping[str, str]

    @abstractmethod
    def compute(self, structure: Structure, request: Request = ENERGY_AND_FORCES) -> Properties:
        """Compute the requested properties of one structure.

        Args:
            structure: geometry, charge and multiplicity.
            request: which properties to compute; energy and forces by default.

        Returns:
            Properties of one structure in float64 (eV, eV/Å, eV/Å²), with error estimates where the engine has them.

        Raises:
            EngineError: no convergence, or results that are not finite numbers. The message names the structure.
            GeometryError: overlapping atoms.
            RequestError: a property that this engine cannot compute, or probes of a wrong shape.
        """


@dataclass(frozen=True, eq=False, repr=False)
class SinglePoint(ShortRepr):
    """One evaluation: energy in eV, forces in eV/Å, stress in eV/Å³ (None for open structures).

    Attributes:
        grid_forces: the part of the forces caused by the integration grid moving with the atoms (zero for a perfect
            grid), eV/Å; None without a grid. Its derivative is the error that the grid makes in the curvature.
    """

    energy: float
    forces: Float[np.ndarray, "n 3"]
    stress: Float[np.ndarray, "3 3"] | None = None
    grid_forces: Float[np.ndarray, "n 3"] | None = None


EnergyFunction = Callable[[Float[np.ndarray, "n 3"]], SinglePoint]
"""The potential-energy surface of one structure: positions (Å) to energy and forces. Results must not
depend on earlier calls (no warm starts): finite differences would amplify the difference."""
