"""The cause of a loss that is not a finite number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hesse.training.loader import TrainingLoader
from hesse.training.step import LossAndGradient, sum_counts

__all__ = ["diagnose_non_finite"]


def diagnose_non_finite(
    gradient: LossAndGradient,
    loader: TrainingLoader,
    indices: Sequence[int],
    step: int,
    weights: Mapping[str, float],
    ids: Sequence[str],
    hint: str,
) -> str:
    """Evaluate the structures of a step one by one, to find those whose loss or gradient is not finite.

    Args:
        gradient: loss and gradient, used in this process alone; gradients of the parameters are overwritten.
        loader: the loader of the run.
        indices: structures of the step.
        step: number of the step, from 0.
        weights: weight of each loss term by name.
        ids: ids of all structures of the data set.
        hint: sentence about the last valid state.

    Returns:
        An error message that names these structures.
    """
    non_finite = []
    for index in indices:
        gradient.potential.zero_grad(set_to_none=True)
        microbatches = loader.load(indices, step, only=[index])
        total, _ = gradient(microbatches, weights, sum_counts(gradient.loss, microbatches, weights))
        gradients = [p.grad for p in gradient.potential.parameters() if p.grad is not None]
        if not (bool(torch.isfinite(total)) and all(bool(torch.isfinite(g).all()) for g in gradients)):
            non_finite.append(ids[index])
    if not non_finite:
        return (
            f"step {step + 1}: the loss of the whole batch is not finite although that of each of its structures is: "
            f"the run diverged. {hint}; lower optimizer.learning_rate or optimizer.max_grad_norm."
        )
    shown = ", ".join(f'"{name}"' for name in non_finite[:5]) + (", ..." if len(non_finite) > 5 else "")
    return (
        f"step {step + 1}: loss or gradient is not a finite number for {len(non_finite)} of {len(indices)} structures: "
        f"{shown}. {hint}. Look at these structures (labels, overlapping atoms); if they are correct, lower "
        "optimizer.learning_rate or use dtype float64."
    )
