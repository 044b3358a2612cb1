"""What an engine is, and the smaller thing most engines are made from: a surface that gives energies and forces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hesse.structures import Properties, Request, Structure

__all__ = ["EnergyFunction", "Engine", "SinglePoint"]


class Engine(ABC):
    """Anything that answers "energy, forces, Hessian-vector products, Hessian of this structure".

    Attributes:
        name: the program or method, as on the command line ("gfn2").
        level: level of theory ("GFN2-xTB"). Labels of different levels must not be mixed.
        settings: everything else that changes the numbers (accuracy, step, ...), for provenance.
    """

    name: str
    level: str
    settings: Mapping[str, str]

    @abstractmethod
    def compute(self, structure: Structure, request: Request) -> Properties:
        """Labels of one structure, float64, with an error estimate where the engine has one.

        Raises:
            EngineError: no convergence, or results that are not finite numbers; the message names the structure.
            GeometryError: atoms on top of each other.
            RequestError: a label that this engine cannot give, or probes of a wrong shape.
        """


@dataclass(frozen=True, eq=False)
class SinglePoint:
    """One evaluation: energy in eV, forces in eV/Å, stress in eV/Å³ (None for open structures).

    Attributes:
        grid_forces: the part of the forces that comes from an integration grid moving with the atoms, and that a
            perfect grid would not have; None without a grid. Its slope measures what the grid does to curvature.
    """

    energy: float
    forces: Float[np.ndarray, "n 3"]
    stress: Float[np.ndarray, "3 3"] | None = None
    grid_forces: Float[np.ndarray, "n 3"] | None = None


EnergyFunction = Callable[[Float[np.ndarray, "n 3"]], SinglePoint]
"""The potential-energy surface of one structure: positions (Å) to energy and forces. Each call stands for itself: no
result may depend on the calls before it (no warm starts), because finite differences would see the difference."""
