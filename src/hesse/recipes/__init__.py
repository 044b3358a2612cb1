"""Recipes: complete protocols made of the parts of Hesse. They use the training loop of `hesse.training`."""

from hesse.recipes.demonstration import DemoPlan, DemoResult, run_demo
from hesse.recipes.judging import SUITES, evaluate
from hesse.recipes.molecules import g2_molecules, hold_out
from hesse.recipes.parallel_runs import train_in_parallel
from hesse.recipes.thermo_of_structures import thermo
from hesse.recipes.vibrations_of_many import VibrationsReport, analyze_vibrations

__all__ = [
    "SUITES",
    "DemoPlan",
    "DemoResult",
    "VibrationsReport",
    "analyze_vibrations",
    "evaluate",
    "g2_molecules",
    "hold_out",
    "run_demo",
    "thermo",
    "train_in_parallel",
]
