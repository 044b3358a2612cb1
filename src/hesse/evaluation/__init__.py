"""Judging potentials: predictions, errors in the units of the field, and the noise floor of the labels beside them."""

from hesse.evaluation.evaluation import RelativeChange, Evaluation, evaluate_model, relative_rmse_change
from hesse.evaluation.noise import float32_resolution, noise_estimates
from hesse.evaluation.pairs import PROPERTIES, UNITS, matched_values, symmetrised_hessian
from hesse.evaluation.prediction import DEFAULT_MAX_ATOMS, predict, check_known_elements
from hesse.evaluation.rows import METRICS, MetricRow, error_sums, error_metrics
from hesse.evaluation.sums import ErrorSums

__all__ = [
    "DEFAULT_MAX_ATOMS",
    "METRICS",
    "PROPERTIES",
    "UNITS",
    "RelativeChange",
    "Evaluation",
    "MetricRow",
    "ErrorSums",
    "evaluate_model",
    "relative_rmse_change",
    "float32_resolution",
    "error_sums",
    "error_metrics",
    "noise_estimates",
    "matched_values",
    "predict",
    "check_known_elements",
    "symmetrised_hessian",
]
