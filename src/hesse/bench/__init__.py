"""Benchmarks: costs of labels, of training steps and of inference, compared with other programs."""

from hesse.bench.cases import BenchmarkCase, HesseCase
from hesse.bench.inference_costs import InferenceCost, InferencePlan, measure_inference_costs
from hesse.bench.label_costs import LabelCost, LabelCostPlan, alkane, fitted_exponents, measure_label_costs
from hesse.bench.named_potentials import named_potentials, untrained_network
from hesse.bench.step_costs import StepCost, StepCosts, StepPlan, measure_step_costs

__all__ = [
    "BenchmarkCase",
    "HesseCase",
    "InferenceCost",
    "InferencePlan",
    "LabelCost",
    "LabelCostPlan",
    "StepCost",
    "StepCosts",
    "StepPlan",
    "alkane",
    "fitted_exponents",
    "measure_inference_costs",
    "measure_label_costs",
    "measure_step_costs",
    "named_potentials",
    "untrained_network",
]
