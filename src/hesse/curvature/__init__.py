"""Derivatives of any potential: forces, Hessian-vector products, Hessians, stress."""

from hesse.curvature.committee import Committee, committee
from hesse.curvature.evaluate import evaluate

__all__ = ["Committee", "committee", "evaluate"]
