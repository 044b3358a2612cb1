"""Potentials of other frameworks, and any energy function, as potentials of Hesse."""

from hesse.models.adapters.adapter import Adapter
from hesse.models.adapters.callable import CallablePotential
from hesse.models.adapters.layouts import Edges, Padded, edges, padded, require_open

__all__ = ["Adapter", "CallablePotential", "Edges", "Padded", "edges", "padded", "require_open"]
