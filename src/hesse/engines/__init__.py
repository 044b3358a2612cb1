"""Engines: whatever answers "energy, forces, HVP, Hessian of this structure"."""

from hesse.engines.ase import AseEngine, EngineCalculator
from hesse.engines.differences import noise_of_gradients, picked_step
from hesse.engines.engine import Engine, Point, Surface
from hesse.engines.numerical import Analytic, Differences, ForceEngine
from hesse.engines.parse import ENGINE_FORMS, make_engine
from hesse.engines.potential import PotentialEngine
from hesse.engines.potentials import POTENTIAL_FORMS, make_potential
from hesse.engines.pyscf import PyscfEngine
from hesse.engines.xtb import XTB_METHODS, XtbEngine

__all__ = [
    "ENGINE_FORMS",
    "POTENTIAL_FORMS",
    "XTB_METHODS",
    "Analytic",
    "AseEngine",
    "Differences",
    "Engine",
    "EngineCalculator",
    "ForceEngine",
    "Point",
    "PotentialEngine",
    "PyscfEngine",
    "Surface",
    "XtbEngine",
    "make_engine",
    "make_potential",
    "noise_of_gradients",
    "picked_step",
]
