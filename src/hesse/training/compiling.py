"""Eager or compiled: which of the two a run takes, why, and whether they still agree.

Compiling takes half a minute to minutes, and longer runs get them back. The choice is made once, before the first step,
and kept with the state of the run, so that a continued run does what it did before.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hesse.errors import CompilationError
from hesse.training.checkpoint import Progress
from hesse.training.compiled import CompiledGradient
from hesse.training.config import TrainConfig
from hesse.training.processes import Processes
from hesse.training.start import is_own
from hesse.training.step import GradientStep, Part

__all__ = ["CHECK_EVERY", "Choice", "StepMode", "choose", "disagreement", "tolerance"]

CHECK_EVERY = 1000
"""Steps between comparisons of compiled with eager gradients: a cost of some tenths of a percent."""
EXPECTED_COST = 120.0
"""Seconds of processor time that compiling takes, with the comparison."""
EXPECTED_GAIN = 0.3
"""The part of a step's time that compiling saves (docs/performance.md)."""
REPEATS = 3


@dataclass(frozen=True)
class Choice:
    """What a run does, and why, in words for its record."""

    mode: Literal["eager", "compiled"]
    reason: str


class StepMode:
    """How the steps of one run are done.

    Args:
        gradient: the step; eager so far.
        progress: of the run, which keeps what was settled.
        processes: who trains together; the first of them decides.
    """

    def __init__(self, gradient: GradientStep, progress: Progress, processes: Processes) -> None:
        self.gradient, self.progress, self.processes = gradient, progress, processes
        self._news: list[str] = []
        self._unchecked = True  # in this process: a run that goes on compiles anew
        gradient.given_up = self._give_up

    def settle(self, config: TrainConfig, first_parts: Callable[[], Sequence[Part]]) -> str:
        """Decide, unless the run has decided before. `first_parts`: a step's structures, to try on. Returns what was
        decided, and why, in words.

        Raises:
            CompilationError: see `choose`.
        """
        if self.progress.compiled is None:
            choice = self.processes.of_first(lambda: self._choice(config, first_parts))
            self._news.append(f"{choice.mode}: {choice.reason}")
        else:
            choice = Choice("compiled" if self.progress.compiled else "eager", "as before")
        if choice.mode == "compiled" and config.compile == "never":
            choice = Choice("eager", "compile: never")
        self.progress.compiled = choice.mode == "compiled"
        if self.progress.compiled and self.gradient.compiled is None:
            self.gradient.compiled = CompiledGradient(self.gradient.potential)
        return f"{choice.mode}: {choice.reason}"

    def _choice(self, config: TrainConfig, first_parts: Callable[[], Sequence[Part]]) -> Choice:
        own = is_own(self.gradient.potential)
        on_trial = config.compile == "always" or (config.compile == "auto" and own)
        return choose(
            config.compile,
            self.gradient,
            first_parts() if on_trial else [],
            config.weights.model_dump(),
            steps=config.steps - self.progress.step,
            own=own,
        )

    def compare(self, parts: Sequence[Part], weights: Mapping[str, float]) -> None:
        """Every so often: does what is compiled still agree with what is not?"""
        due = self._unchecked or self.progress.step % CHECK_EVERY == 0
        if self.gradient.compiled is None or not parts or not due:
            return
        self._unchecked = False
        try:
            apart = disagreement(self.gradient, parts, weights)
        except CompilationError as error:
            self.gradient.compiled = None
            self._give_up(str(error))
            return
        limit = tolerance(next(self.gradient.potential.parameters()).dtype)
        if not apart <= limit:
            self.gradient.compiled = None
            self._give_up(f"compiled gradients differ from eager ones by {apart:.1e}, more than {limit:.0e}")

    def agree(self) -> None:
        """Where one process went on eagerly, all do from here on."""
        if self.processes.largest(int(not self.progress.compiled)):
            self.progress.compiled, self.gradient.compiled = False, None

    def news(self) -> list[str]:
        """What there is to tell since the last time."""
        news, self._news = self._news, []
        return news

    def _give_up(self, reason: str) -> None:
        """Say so where it cannot be missed."""
        self.progress.compiled = False
        said = f"step {self.progress.step + 1}: from here on eager: {reason}"
        self._news.append(said)
        warnings.warn(said, RuntimeWarning, stacklevel=2)


def tolerance(dtype: torch.dtype) -> float:
    """How far compiled gradients may lie from eager ones, relative: sums in another order, no more."""
    return 1e-8 if dtype == torch.float64 else 1e-3


def choose(
    wanted: Literal["auto", "always", "never"],
    step: GradientStep,
    parts: Sequence[Part],
    weights: Mapping[str, float],
    *,
    steps: int,
    own: bool,
) -> Choice:
    """Try on `parts` what compiling is worth, and leave `step` in the mode chosen. Parameters, their gradients, running
    statistics and random numbers stay as they are.

    Args:
        wanted: "auto" decides by time; "always" and "never" say.
        step: eager.
        parts: a batch of the run.
        weights: of the loss, all that will ever be on.
        steps: how many are to come.
        own: whether this is one of Hesse's networks (others are compiled with "always" only).

    Raises:
        CompilationError: "always", and the potential cannot be compiled, or what was compiled is wrong.
    """
    if wanted == "never":
        return Choice("eager", "compile: never")
    if wanted == "auto" and not own:
        return Choice(
            "eager", "not one of Hesse's networks; `hesse check` tells whether compile: always is worth a try"
        )
    if weights.get("hessian", 0.0) > 0:
        return _refused(wanted, "full Hessians are not compiled")
    with _untouched(step):
        eager = math.inf if wanted == "always" else _seconds(step, parts, weights)
        if wanted == "auto" and eager * steps * EXPECTED_GAIN < EXPECTED_COST:
            return Choice(
                "eager", f"{steps} steps of {1e3 * eager:.0f} ms are too short a run to win back the time of compiling"
            )
        started = time.monotonic()
        try:
            step.compiled = CompiledGradient(step.potential)
            reasons = [step.why_eager(labels, weights) for _, labels in parts]
            # Where nothing would be compiled, eager agrees with eager.
            apart = math.nan if all(reasons) else disagreement(step, parts, weights)
        except CompilationError as error:
            step.compiled = None
            return _refused(wanted, f"it cannot be compiled ({error})")
        if all(reasons):
            step.compiled = None
            return _refused(wanted, "; ".join(dict.fromkeys(reasons)) or "there is nothing to try it on")
        spent = time.monotonic() - started
        limit = tolerance(next(step.potential.parameters()).dtype)
        if not apart <= limit:
            step.compiled = None
            return _refused(wanted, f"compiled gradients differ from eager ones by {apart:.1e}, more than {limit:.0e}")
        compiled = _seconds(step, parts, weights)
        if wanted == "auto" and compiled > 0.95 * eager:
            step.compiled = None
            return Choice("eager", f"compiled, a step takes {1e3 * compiled:.0f} ms, eager {1e3 * eager:.0f} ms")
    against = "" if wanted == "always" else f" against {1e3 * eager:.0f} ms eager"
    return Choice(
        "compiled",
        f"{1e3 * compiled:.0f} ms a step{against}, after {spent:.0f} s of compiling; gradients agree to {apart:.0e}",
    )


def _refused(wanted: str, reason: str) -> Choice:
    if wanted == "always":
        raise CompilationError(f"compile: always, but {reason}. Use compile: auto, or never.")
    return Choice("eager", reason)


def disagreement(
    step: GradientStep,
    parts: Sequence[Part],
    weights: Mapping[str, float],
    counts: Mapping[str, Tensor] | None = None,
) -> float:
    """The largest relative difference between compiled and eager: of the loss, and of the gradient in any parameter
    (relative to the norm of that parameter's gradient, or to a thousandth of the whole, if that is more)."""
    compiled, step.compiled = step.compiled, None
    with _untouched(step):
        eager_loss, eager = _gradient(step, parts, weights, counts)
        step.compiled = compiled
        found_loss, found = _gradient(step, parts, weights, counts)
    norms = torch.stack([slope.norm() for slope in eager])
    floor = 1e-3 * norms.norm()
    gaps = torch.stack([(a - b).norm() for a, b in zip(found, eager, strict=True)])
    worst = float((gaps / torch.maximum(norms, floor).clamp(min=1e-30)).max())
    loss = float((found_loss - eager_loss).abs() / eager_loss.abs().clamp(min=1e-30))
    return max(worst, loss)


def _gradient(
    step: GradientStep, parts: Sequence[Part], weights: Mapping[str, float], counts: Mapping[str, Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    trained = step.trained()
    for parameter in trained:
        parameter.grad = None
    loss, _ = step(parts, weights, counts)
    return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]


def _seconds(step: GradientStep, parts: Sequence[Part], weights: Mapping[str, float]) -> float:
    """Time of a step, the median of some, after one that warms up. On a CPU it is processor time for each thread: what
    else the machine does slows compiling as well."""
    on_cpu = next(step.potential.parameters()).device.type == "cpu"
    clock, share = (time.process_time, torch.get_num_threads()) if on_cpu else (time.perf_counter, 1)
    times = []
    for _ in range(REPEATS + 1):
        started = clock()
        loss, _ = step(parts, weights)
        loss.item()  # waits for the device
        times.append((clock() - started) / share)
    return statistics.median(times[1:])


@contextmanager
def _untouched(step: GradientStep) -> Iterator[None]:
    """Gradients, buffers and random numbers are afterwards what they were before; failures are raised."""
    potential = step.potential
    slopes = [parameter.grad for parameter in potential.parameters()]
    for parameter in potential.parameters():
        parameter.grad = None
    buffers = [buffer.clone() for buffer in potential.buffers()]
    given_up, step.given_up = step.given_up, None
    device = next(potential.parameters()).device
    forked: dict[str, Any] = {"devices": []}
    if device.type != "cpu":
        forked = {"devices": [device], "device_type": device.type}
    try:
        with torch.random.fork_rng(**forked):
            yield
    finally:
        step.given_up = given_up
        for parameter, slope in zip(potential.parameters(), slopes, strict=True):
            parameter.grad = slope
        with torch.no_grad():
            for buffer, value in zip(potential.buffers(), buffers, strict=True):
                buffer.copy_(value)
