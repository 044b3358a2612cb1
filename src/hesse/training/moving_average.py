"""Exponential moving average of the parameters of a model."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["update_moving_average"]


def update_moving_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the parameters of the average towards those of the model, and copy its buffers.

    Args:
        average: a copy of the model, changed in place.
        model: the model after a step.
        step: number of the step; the memory is short at the start, when parameters change fast.
        decay: fraction of the average that stays, in later steps.
    """
    decay = min(decay, (1.0 + step) / (10.0 + step))
    with torch.no_grad():
        pairs = zip(average.parameters(), model.parameters(), strict=True)
        # Some frameworks have integer tables as parameters.
        means, values = zip(*((a, b) for a, b in pairs if b.is_floating_point()), strict=True)
        torch.optim.swa_utils.get_ema_multi_avg_fn(decay)(list(means), list(values), None)
        for buffer, statistic in zip(average.buffers(), model.buffers(), strict=True):
            buffer.copy_(statistic)  # running statistics, if the network has them
