"""Judging potentials: predictions, errors in the units of the field, and the noise floor of the labels beside them."""

from hesse.evaluation.evaluation import Change, Evaluation, assess, change
from hesse.evaluation.noise import energy_resolution, noise_sums
from hesse.evaluation.pairs import PROPERTIES, UNITS, paired, symmetrised_hessian
from hesse.evaluation.prediction import DEFAULT_MAX_ATOMS, predict, require_known_elements
from hesse.evaluation.rows import METRICS, Row, error_sums, errors
from hesse.evaluation.sums import Sums

__all__ = [
    "DEFAULT_MAX_ATOMS",
    "METRICS",
    "PROPERTIES",
    "UNITS",
    "Change",
    "Evaluation",
    "Row",
    "Sums",
    "assess",
    "change",
    "energy_resolution",
    "error_sums",
    "errors",
    "noise_sums",
    "paired",
    "predict",
    "require_known_elements",
    "symmetrised_hessian",
]
