"""The loss: weighted squared errors of predictions against labels."""

from hesse.losses.loss import (
    LOSS_TERMS,
    LossWeights,
    count_labeled,
    masked_targets,
    per_structure_loss,
    residual_weights,
    weighted_loss,
)

__all__ = [
    "LOSS_TERMS",
    "LossWeights",
    "count_labeled",
    "masked_targets",
    "per_structure_loss",
    "residual_weights",
    "weighted_loss",
]
