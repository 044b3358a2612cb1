"""Adapters: models of other frameworks, and any energy function, as potentials of Hesse."""

from hesse.models.adapters.adapter import Adapter
from hesse.models.adapters.callable import CallablePotential
from hesse.models.adapters.checkpoints import PUBLISHED, checkpoint_file, is_published
from hesse.models.adapters.layouts import EdgeList, PaddedStructures, check_not_periodic, edge_list, pad_structures

__all__ = [
    "PUBLISHED",
    "Adapter",
    "CallablePotential",
    "EdgeList",
    "PaddedStructures",
    "check_not_periodic",
    "checkpoint_file",
    "edge_list",
    "is_published",
    "pad_structures",
]
