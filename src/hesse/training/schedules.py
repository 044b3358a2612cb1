"""Learning rates and loss weights as functions of the step: pure, so that a resumed run meets the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hesse.losses import LossWeights
from hesse.training.config import RampConfig, ScheduleConfig

__all__ = ["Plateau", "learning_rate", "loss_weights_at"]


@dataclass
class Plateau:
    """What the plateau schedule remembers between validations."""

    best: float = math.inf
    n_without_improvement: int = 0
    factor: float = 1.0

    def update(self, loss: float, schedule: ScheduleConfig) -> None:
        """Take note of a validation loss; lower the rate when it has not improved for long enough."""
        if loss < self.best:
            self.best, self.n_without_improvement = loss, 0
            return
        self.n_without_improvement += 1
        if self.n_without_improvement > schedule.patience:
            self.factor, self.n_without_improvement = self.factor * schedule.factor, 0


def learning_rate(base: float, step: int, steps: int, schedule: ScheduleConfig, plateau: Plateau) -> float:
    """The rate for step number `step` (from 0) of `steps`."""
    warmup_factor = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    if schedule.kind == "cosine":
        fraction_done = step / max(steps - 1, 1)
        return (
            base
            * warmup_factor
            * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * fraction_done)))
        )
    return base * warmup_factor * (plateau.factor if schedule.kind == "plateau" else 1.0)


def loss_weights_at(
    weights: LossWeights, ramps: Mapping[Any, RampConfig], step: int, steps: int, every_n_steps: int = 1
) -> dict[str, float]:
    """The loss weights for step number `step` (from 0) of `steps`; curvature in every `every`-th step, weighted so many
    times."""
    values: dict[str, float] = weights.model_dump()
    for name, ramp in ramps.items():
        values[name] *= _ramp(ramp, step / max(steps - 1, 1))
    for name in ("hvp", "hessian"):
        values[name] *= 0 if step % every_n_steps else every_n_steps
    return values


def _ramp(ramp: RampConfig, fraction_done: float) -> float:
    if fraction_done >= ramp.end:
        return 1.0
    if fraction_done <= ramp.start:
        return 0.0
    x = (fraction_done - ramp.start) / (ramp.end - ramp.start)
    return x if ramp.shape == "linear" else 0.5 * (1 - math.cos(math.pi * x))
