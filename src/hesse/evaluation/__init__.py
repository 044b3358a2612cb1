"""Evaluation of potentials: predictions, errors in eV and Å, and the noise floor of the labels."""

from hesse.evaluation.breakdown import (
    GroupErrors,
    GroupRow,
    StructureErrors,
    StructureRow,
    group_rows,
    structure_rows,
)
from hesse.evaluation.metrics import METRICS, MetricRow, error_metrics, error_sums
from hesse.evaluation.model_errors import Evaluation, RelativeChange, evaluate_model, relative_rmse_change
from hesse.evaluation.noise_floor import float32_resolution, noise_estimates
from hesse.evaluation.parity import ErrorSums, matched_values, property_names, property_unit, symmetrized_hessian
from hesse.evaluation.prediction import check_known_elements, predict
from hesse.evaluation.vibrational_errors import VibrationalErrors, vibrational_errors

__all__ = [
    "METRICS",
    "ErrorSums",
    "Evaluation",
    "GroupErrors",
    "GroupRow",
    "MetricRow",
    "RelativeChange",
    "StructureErrors",
    "StructureRow",
    "VibrationalErrors",
    "check_known_elements",
    "error_metrics",
    "error_sums",
    "evaluate_model",
    "float32_resolution",
    "group_rows",
    "matched_values",
    "noise_estimates",
    "predict",
    "property_names",
    "property_unit",
    "relative_rmse_change",
    "structure_rows",
    "symmetrized_hessian",
    "vibrational_errors",
]
