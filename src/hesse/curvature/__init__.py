"""Derivatives of any potential: forces, Hessian-vector products, Hessians, stress; lowest modes of large structures."""

from hesse.curvature.batched import evaluate_structures
from hesse.curvature.compiled_evaluation import CompiledEvaluation
from hesse.curvature.davidson import LowestModes, lowest_eigenpairs
from hesse.curvature.energy_derivatives import check_finite, evaluate
from hesse.curvature.ensemble import EnsemblePrediction, evaluate_ensemble, mean_and_std
from hesse.curvature.operator import HessianOperator
from hesse.potential import dtype_and_device

__all__ = [
    "CompiledEvaluation",
    "EnsemblePrediction",
    "HessianOperator",
    "LowestModes",
    "check_finite",
    "dtype_and_device",
    "evaluate",
    "evaluate_ensemble",
    "evaluate_structures",
    "lowest_eigenpairs",
    "mean_and_std",
]
