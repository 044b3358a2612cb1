"""Use of trained potentials: an ASE calculator with exact curvature."""

from hesse.deploy.calculator import HesseCalculator
from hesse.structures.verlet import VerletNeighborList

__all__ = ["HesseCalculator", "VerletNeighborList"]
