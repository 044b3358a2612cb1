"""Engines: whatever answers "energy, forces, HVP, Hessian of this structure"."""

from hesse.engines.ase import AseEngine, EngineCalculator
from hesse.engines.differences import estimate_gradient_noise, choose_step
from hesse.engines.engine import Engine, SinglePoint, EnergyFunction
from hesse.engines.numerical import AnalyticDerivatives, FiniteDifferences, ForceEngine
from hesse.engines.parse import ENGINE_NAMES, make_engine
from hesse.engines.potential import PotentialEngine
from hesse.engines.potentials import POTENTIAL_NAMES, make_potential
from hesse.engines.pyscf import PyscfEngine
from hesse.engines.xtb import XTB_METHODS, XtbEngine

__all__ = [
    "ENGINE_NAMES",
    "POTENTIAL_NAMES",
    "XTB_METHODS",
    "AnalyticDerivatives",
    "AseEngine",
    "FiniteDifferences",
    "Engine",
    "EngineCalculator",
    "ForceEngine",
    "SinglePoint",
    "PotentialEngine",
    "PyscfEngine",
    "EnergyFunction",
    "XtbEngine",
    "make_engine",
    "make_potential",
    "estimate_gradient_noise",
    "choose_step",
]
