"""Recipes: complete protocols made of the parts of Hesse. They use the training loop of `hesse.training`."""

from hesse.recipes.demonstration import DemoPlan, DemoResult, run_demo
from hesse.recipes.molecules import g2_molecules, hold_out
from hesse.recipes.parallel_runs import train_in_parallel

__all__ = ["DemoPlan", "DemoResult", "g2_molecules", "hold_out", "run_demo", "train_in_parallel"]
