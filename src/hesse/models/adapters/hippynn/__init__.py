"""Graphs of hippynn as potentials, and copies of them in Hesse's own HIP-NN-TS."""

from hesse.models.adapters.hippynn.hippynn_convert import hipnn_from_hippynn
from hesse.models.adapters.hippynn.hippynn_potential import HippynnPotential

__all__ = ["HippynnPotential", "hipnn_from_hippynn"]
