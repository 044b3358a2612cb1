"""Losses of labels and predictions."""

from hesse.losses.weighted import (
    LOSS_TERMS,
    LossWeights,
    residual_weights,
    count_labeled,
    per_structure_loss,
    masked_targets,
    weighted_loss,
)

__all__ = ["LOSS_TERMS", "LossWeights", "residual_weights", "count_labeled", "per_structure_loss", "masked_targets", "weighted_loss"]
