"""Harmonic analysis: pure functions of a Hessian."""
