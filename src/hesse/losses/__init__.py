"""The loss: weighted errors of predictions against labels."""

from hesse.losses.loss import Loss, matched_predictions
from hesse.losses.terms import LossTerm, RampConfig, term_names
from hesse.losses.weighted_loss import default_loss, per_structure_loss, weighted_loss
from hesse.losses.weights import LossWeights

__all__ = [
    "Loss",
    "LossTerm",
    "LossWeights",
    "RampConfig",
    "default_loss",
    "matched_predictions",
    "per_structure_loss",
    "term_names",
    "weighted_loss",
]
