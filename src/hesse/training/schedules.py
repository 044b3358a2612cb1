"""Learning rates, loss weights and seeds as functions of the step: a resumed run gets the same numbers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from hesse.losses import Loss, RampConfig
from hesse.training.config import ScheduleConfig

__all__ = ["Plateau", "derive_seed", "learning_rate", "loss_weights_at"]


@dataclass
class Plateau:
    """State of the plateau schedule between validations.

    Attributes:
        best: lowest validation loss so far.
        n_without_improvement: validations since then, or since the last reduction of the rate.
        factor: the learning rate is multiplied by it.
    """

    best: float = math.inf
    n_without_improvement: int = 0
    factor: float = 1.0

    def update(self, loss: float, schedule: ScheduleConfig) -> None:
        """Add a validation loss; reduce the factor if the loss has not improved for more than `patience` validations.

        Args:
            loss: the new validation loss. NaN counts as no improvement.
            schedule: gives `patience`, and the factor of a reduction.
        """
        if loss < self.best:
            self.best, self.n_without_improvement = loss, 0
            return
        self.n_without_improvement += 1
        if self.n_without_improvement > schedule.patience:
            self.factor, self.n_without_improvement = self.factor * schedule.factor, 0


def learning_rate(base: float, step: int, steps: int, schedule: ScheduleConfig, plateau: Plateau) -> float:
    """The learning rate of one step.

    Args:
        base: learning rate without any schedule.
        step: number of the step, from 0.
        steps: number of steps of the run.
        schedule: warmup, and kind of decay.
        plateau: state of the plateau schedule.

    Returns:
        The learning rate.
    """
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
    loss: Loss,
    weights: Mapping[str, float],
    ramps: Mapping[str, RampConfig],
    step: int,
    steps: int,
    every_n_steps: int = 1,
) -> dict[str, float]:
    """The loss weights of one step.

    Args:
        loss: the loss; its terms may have ramps of their own.
        weights: weight of each term by name, without ramps.
        ramps: by name of a loss term, the ramp of its weight.
        step: number of the step, from 0.
        steps: number of steps of the run.
        every_n_steps: n. The weights of curvature terms are multiplied by n in every n-th step and zero otherwise.

    Returns:
        The weight of each term by name.
    """
    values = dict(weights)
    for term in loss:
        ramp = ramps.get(term.name, term.ramp)
        if ramp is not None:
            values[term.name] *= ramp.factor(step / max(steps - 1, 1))
        if term.quantity in ("hvp", "hessian"):
            values[term.name] *= 0 if step % every_n_steps else every_n_steps
    return values


def derive_seed(*numbers: int) -> int:
    """A seed that is a function of several numbers, for example of (seed, epoch).

    Args:
        *numbers: the numbers; their order matters.

    Returns:
        A number below 2^56.
    """
    digest = hashlib.blake2b("/".join(map(str, numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
