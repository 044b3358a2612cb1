"""Losses of labels and predictions."""

from hesse.losses.weighted import TERMS, Weights, holders, per_structure_errors, weighted_loss

__all__ = ["TERMS", "Weights", "holders", "per_structure_errors", "weighted_loss"]
