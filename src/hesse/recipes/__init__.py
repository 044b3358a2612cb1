"""Recipes: choices of parts for a whole job. They contain no loops of their own."""

from hesse.recipes.demo import DemoPlan, DemoResult, run_demo
from hesse.recipes.label_costs import CostPlan, LabelCost, alkane, fitted_exponents, measure_label_costs
from hesse.recipes.molecules import g2_molecules, hold_out
from hesse.recipes.side_by_side import train_side_by_side

__all__ = [
    "CostPlan",
    "DemoPlan",
    "DemoResult",
    "LabelCost",
    "alkane",
    "fitted_exponents",
    "g2_molecules",
    "hold_out",
    "measure_label_costs",
    "run_demo",
    "train_side_by_side",
]
