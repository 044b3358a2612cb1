"""Recipes: choices of parts for a whole job. They contain no loops of their own."""

from hesse.recipes.demo import DemoPlan, DemoResult, run_demo
from hesse.recipes.inference_costs import InferenceCost, InferencePlan, measure_inference_costs
from hesse.recipes.label_costs import LabelCostPlan, LabelCost, alkane, fitted_exponents, measure_label_costs
from hesse.recipes.molecules import g2_molecules, hold_out
from hesse.recipes.named_potentials import untrained_network, named_potentials
from hesse.recipes.side_by_side import train_in_parallel
from hesse.recipes.step_costs import StepCost, StepCosts, StepPlan, measure_step_costs
from hesse.recipes.step_subjects import HesseCase, BenchmarkCase

__all__ = [
    "LabelCostPlan",
    "DemoPlan",
    "DemoResult",
    "InferenceCost",
    "InferencePlan",
    "LabelCost",
    "HesseCase",
    "StepCost",
    "StepCosts",
    "StepPlan",
    "BenchmarkCase",
    "alkane",
    "fitted_exponents",
    "untrained_network",
    "g2_molecules",
    "hold_out",
    "measure_inference_costs",
    "measure_label_costs",
    "measure_step_costs",
    "named_potentials",
    "run_demo",
    "train_in_parallel",
]
