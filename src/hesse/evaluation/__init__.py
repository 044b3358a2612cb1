"""Evaluation of potentials: predictions, errors in eV and Å, and the noise floor of the labels."""

from hesse.evaluation.averages import MetricRow
from hesse.evaluation.breakdown import (
    GroupErrors,
    GroupRow,
    StructureErrors,
    StructureRow,
    group_rows,
    structure_rows,
)
from hesse.evaluation.curvature_errors import curvature_metrics
from hesse.evaluation.metrics import METRICS, error_metrics, error_sums
from hesse.evaluation.model_errors import Evaluation, RelativeChange, evaluate_model, relative_rmse_change
from hesse.evaluation.noise_floor import float32_resolution, noise_estimates
from hesse.evaluation.parity import ErrorSums, matched_values, property_names, property_unit, symmetrized_hessian
from hesse.evaluation.prediction import check_known_elements, predict
from hesse.evaluation.reaction_errors import find_reactions, reaction_metrics, saddle_metrics
from hesse.evaluation.saddle_judgment import judge_saddle, saddle_tasks
from hesse.evaluation.spread_calibration import SpreadCalibration, spread_calibration
from hesse.evaluation.survival import survival_metrics
from hesse.evaluation.vibrational_errors import VibrationalErrors, vibrational_errors

__all__ = [
    "METRICS",
    "ErrorSums",
    "Evaluation",
    "GroupErrors",
    "GroupRow",
    "MetricRow",
    "RelativeChange",
    "SpreadCalibration",
    "StructureErrors",
    "StructureRow",
    "VibrationalErrors",
    "check_known_elements",
    "curvature_metrics",
    "error_metrics",
    "error_sums",
    "evaluate_model",
    "find_reactions",
    "float32_resolution",
    "group_rows",
    "judge_saddle",
    "matched_values",
    "noise_estimates",
    "predict",
    "property_names",
    "property_unit",
    "reaction_metrics",
    "relative_rmse_change",
    "saddle_metrics",
    "saddle_tasks",
    "spread_calibration",
    "structure_rows",
    "survival_metrics",
    "symmetrized_hessian",
    "vibrational_errors",
]
