"""Hesse trains machine-learning interatomic potentials with the right curvature, from Hessian-vector products."""

__version__ = "0.1.0"
