"""Graphs of hippynn as potentials, and copies of them in Hesse's own HIP-NN-TS."""

from hesse.models.adapters.hippynn.potential import HippynnPotential
from hesse.models.adapters.hippynn.weights import hipnn_from_hippynn

__all__ = ["HippynnPotential", "hipnn_from_hippynn"]
