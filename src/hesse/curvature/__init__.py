"""Derivatives of any potential: forces, Hessian-vector products, Hessians, stress; lowest modes of large systems."""

from hesse.curvature.committee import EnsemblePrediction, evaluate_ensemble
from hesse.curvature.evaluate import evaluate
from hesse.curvature.finite import check_finite
from hesse.curvature.home import dtype_and_device
from hesse.curvature.lanczos import LowestModes, lowest_modes
from hesse.curvature.many import evaluate_structures
from hesse.curvature.operator import HessianOperator

__all__ = [
    "EnsemblePrediction",
    "HessianOperator",
    "LowestModes",
    "evaluate_ensemble",
    "evaluate",
    "evaluate_structures",
    "dtype_and_device",
    "lowest_modes",
    "check_finite",
]
