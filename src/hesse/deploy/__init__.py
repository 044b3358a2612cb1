"""Use of trained potentials: an ASE calculator with exact curvature, and the programs in which people run dynamics."""

from hesse.deploy.calculator import HesseCalculator, StressUndefinedError
from hesse.deploy.engine_export import export
from hesse.deploy.force_field import ForceField
from hesse.deploy.lammps import LammpsForces
from hesse.deploy.metatomic_export import export_metatomic
from hesse.deploy.torch_sim import torch_sim_model
from hesse.structures.verlet import VerletNeighborList

__all__ = [
    "ForceField",
    "HesseCalculator",
    "LammpsForces",
    "StressUndefinedError",
    "VerletNeighborList",
    "export",
    "export_metatomic",
    "torch_sim_model",
]
