"""Learning rates and loss weights as functions of the step: pure, so that a resumed run meets the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hesse.losses import Weights
from hesse.training.config import RampConfig, ScheduleConfig

__all__ = ["Plateau", "learning_rate", "weights_at"]


@dataclass
class Plateau:
    """What the plateau schedule remembers between validations."""

    best: float = math.inf
    waited: int = 0
    factor: float = 1.0

    def see(self, loss: float, schedule: ScheduleConfig) -> None:
        """Take note of a validation loss; lower the rate when it has not improved for long enough."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > schedule.patience:
            self.factor, self.waited = self.factor * schedule.factor, 0


def learning_rate(base: float, step: int, steps: int, schedule: ScheduleConfig, plateau: Plateau) -> float:
    """The rate for step number `step` (from 0) of `steps`."""
    rise = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    if schedule.kind == "cosine":
        done = step / max(steps - 1, 1)
        return base * rise * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * done)))
    return base * rise * (plateau.factor if schedule.kind == "plateau" else 1.0)


def weights_at(
    weights: Weights, ramps: Mapping[Any, RampConfig], step: int, steps: int, every: int = 1
) -> dict[str, float]:
    """The loss weights for step number `step` (from 0) of `steps`; curvature in every `every`-th step, weighted so many
    times."""
    values: dict[str, float] = weights.model_dump()
    for name, ramp in ramps.items():
        values[name] *= _risen(ramp, step / max(steps - 1, 1))
    for name in ("hvp", "hessian"):
        values[name] *= 0 if step % every else every
    return values


def _risen(ramp: RampConfig, time: float) -> float:
    if time >= ramp.end:
        return 1.0
    if time <= ramp.start:
        return 0.0
    x = (time - ramp.start) / (ramp.end - ramp.start)
    return x if ramp.shape == "linear" else 0.5 * (1 - math.cos(math.pi * x))
