"""Losses of labels and predictions."""

from hesse.losses.weighted import (
    TERMS,
    Weights,
    factors,
    holders,
    per_structure_errors,
    references_of,
    weighted_loss,
)

__all__ = ["TERMS", "Weights", "factors", "holders", "per_structure_errors", "references_of", "weighted_loss"]
