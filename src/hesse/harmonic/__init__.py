"""Harmonic analysis: normal modes and thermal displacements from a Hessian."""
