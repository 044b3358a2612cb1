"""Derivatives of any potential: forces, Hessian-vector products, Hessians, stress; lowest modes of large systems."""

from hesse.curvature.committee import Committee, committee
from hesse.curvature.evaluate import evaluate
from hesse.curvature.finite import require_finite
from hesse.curvature.home import home_of
from hesse.curvature.lanczos import LowestModes, lowest_modes
from hesse.curvature.many import evaluate_many
from hesse.curvature.operator import HessianProducts

__all__ = [
    "Committee",
    "HessianProducts",
    "LowestModes",
    "committee",
    "evaluate",
    "evaluate_many",
    "home_of",
    "lowest_modes",
    "require_finite",
]
