"""Recipes: choices of parts for a whole job. They contain no loops of their own."""

from hesse.recipes.demonstration import DemoPlan, DemoResult, run_demo
from hesse.recipes.molecules import g2_molecules, hold_out
from hesse.recipes.parallel_runs import train_in_parallel

__all__ = ["DemoPlan", "DemoResult", "g2_molecules", "hold_out", "run_demo", "train_in_parallel"]
