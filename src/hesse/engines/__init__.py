"""Engines: sources of energies, forces, Hessian-vector products and Hessians (xTB, DFT, ASE calculators, models)."""

from hesse.engine import EnergyFunction, Engine, SinglePoint
from hesse.engines.ase_engine import AseEngine, EngineCalculator
from hesse.engines.compute import compute
from hesse.engines.engine_inputs import EngineLike, PotentialLike, as_engine, as_potential, engine_for_workers
from hesse.engines.finite_differences import choose_step, estimate_gradient_noise
from hesse.engines.force_engine import AnalyticDerivatives, FiniteDifferences, ForceEngine
from hesse.engines.names import ENGINE_NAMES, POTENTIAL_NAMES, make_engine, make_potential
from hesse.engines.potential_engine import PotentialEngine
from hesse.engines.pyscf import PyscfEngine, PyscfSettings
from hesse.engines.xtb import XTB_METHODS, XtbEngine, XtbSettings

__all__ = [
    "ENGINE_NAMES",
    "POTENTIAL_NAMES",
    "XTB_METHODS",
    "AnalyticDerivatives",
    "AseEngine",
    "EnergyFunction",
    "Engine",
    "EngineCalculator",
    "EngineLike",
    "FiniteDifferences",
    "ForceEngine",
    "PotentialEngine",
    "PotentialLike",
    "PyscfEngine",
    "PyscfSettings",
    "SinglePoint",
    "XtbEngine",
    "XtbSettings",
    "as_engine",
    "as_potential",
    "choose_step",
    "compute",
    "engine_for_workers",
    "estimate_gradient_noise",
    "make_engine",
    "make_potential",
]
