"""Trained potentials at work: an ASE calculator with exact curvature."""

from hesse.deploy.calculator import HesseCalculator
from hesse.deploy.verlet import VerletNeighborList

__all__ = ["HesseCalculator", "VerletNeighborList"]
