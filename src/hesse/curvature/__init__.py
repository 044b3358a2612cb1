"""Derivatives of any potential: forces, Hessian-vector products, Hessians, stress."""

from hesse.curvature.committee import Committee, committee
from hesse.curvature.evaluate import evaluate
from hesse.curvature.home import home_of
from hesse.curvature.operator import HessianProducts

__all__ = ["Committee", "HessianProducts", "committee", "evaluate", "home_of"]
