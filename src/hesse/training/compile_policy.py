"""Eager or compiled steps: the decision, its reason, and the comparison of both during the run.

Compiling takes half a minute to minutes, which long runs save by faster steps. The decision is made once, before the
first step, and stored with the state of the run, so that a continued run does the same.
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
from hesse.potential import dtype_and_device
from hesse.training.checkpoint import TrainState
from hesse.training.compiled_step import CompiledLossAndGradient
from hesse.training.config import TrainConfig
from hesse.training.distributed import Communicator
from hesse.training.initial_model import is_native
from hesse.training.step import LossAndGradient, MicroBatch, sum_counts

__all__ = [
    "CHECK_EVERY",
    "CompilePolicy",
    "Decision",
    "choose_mode",
    "max_relative_difference",
    "state_restored",
    "tolerance",
]

CHECK_EVERY = 1000
"""Steps between comparisons of compiled and eager gradients, which cost some tenths of a percent of the run."""
EXPECTED_COMPILE_SECONDS = 120.0
"""Expected processor time of compiling and of the first comparison, s."""
EXPECTED_SAVING = 0.3
"""Expected fraction of a step's time that compiling saves (docs/performance.md)."""
REPEATS = 3
"""Steps to time."""


@dataclass(frozen=True)
class Decision:
    """Mode of the steps of a run, and the reason as text for its record."""

    mode: Literal["eager", "compiled"]
    reason: str


class CompilePolicy:
    """Decides between eager and compiled steps of one run, and falls back to eager ones after a failure.

    Args:
        gradient: loss and gradient; eager at first.
        state: state of the run, which stores the decision.
        communicator: the processes that train together. Process 0 decides.
    """

    def __init__(self, gradient: LossAndGradient, state: TrainState, communicator: Communicator) -> None:
        self.gradient, self.state, self.communicator = gradient, state, communicator
        self._messages: list[str] = []
        self._unchecked = True  # in this process: a continued run compiles again
        gradient.on_compile_failure = self._fall_back

    def decide(
        self,
        config: TrainConfig,
        example_microbatches: Callable[[], Sequence[MicroBatch]],
        weights: Mapping[str, float],
    ) -> str:
        """Decide, unless that was done in an earlier session of the run.

        Args:
            config: settings of the run.
            example_microbatches: returns structures of a step, to measure with.
            weights: weight of each loss term by name, without ramps.

        Returns:
            Decision and reason as text.

        Raises:
            CompilationError: see `choose_mode`.
        """
        if self.state.compiled is None:
            decision = self.communicator.run_on_rank_zero(
                lambda: self._first_decision(config, example_microbatches, weights)
            )
            self._messages.append(f"{decision.mode}: {decision.reason}")
        else:
            decision = Decision("compiled" if self.state.compiled else "eager", "as before")
        if decision.mode == "compiled" and config.compile == "never":
            decision = Decision("eager", "compile: never")
        self.state.compiled = decision.mode == "compiled"
        if self.state.compiled and self.gradient.compiled is None:
            self.gradient.compiled = CompiledLossAndGradient(self.gradient.potential, self.gradient.loss)
        return f"{decision.mode}: {decision.reason}"

    def _first_decision(
        self,
        config: TrainConfig,
        example_microbatches: Callable[[], Sequence[MicroBatch]],
        weights: Mapping[str, float],
    ) -> Decision:
        """The decision before the first step."""
        native = is_native(self.gradient.potential)
        try_compiling = config.compile == "always" or (config.compile == "auto" and native)
        return choose_mode(
            config.compile,
            self.gradient,
            example_microbatches() if try_compiling else [],
            weights,
            steps=config.steps - self.state.step,
            native=native,
        )

    def verify(self, microbatches: Sequence[MicroBatch], weights: Mapping[str, float]) -> None:
        """Compare compiled with eager gradients every `CHECK_EVERY` steps; fall back to eager steps if they differ.

        Args:
            microbatches: structures of the step.
            weights: weight of each loss term by name.
        """
        due = self._unchecked or self.state.step % CHECK_EVERY == 0
        if self.gradient.compiled is None or not microbatches or not due:
            return
        self._unchecked = False
        try:
            difference = max_relative_difference(self.gradient, microbatches, weights)
        except CompilationError as error:
            self.gradient.compiled = None
            self._fall_back(str(error))
            return
        limit = tolerance(dtype_and_device(self.gradient.potential)[0])
        if not difference <= limit:
            self.gradient.compiled = None
            self._fall_back(f"compiled gradients differ from eager ones by {difference:.1e}, more than {limit:.0e}")

    def synchronize(self) -> None:
        """If one process has fallen back to eager steps, let all of them do so."""
        if self.communicator.all_reduce_max(int(not self.state.compiled)):
            self.state.compiled, self.gradient.compiled = False, None

    def pop_messages(self) -> list[str]:
        """Messages for the record since the last call.

        Returns:
            The messages, which are removed here.
        """
        messages, self._messages = self._messages, []
        return messages

    def _fall_back(self, reason: str) -> None:
        """Continue with eager steps; adds a message and warns."""
        self.state.compiled = False
        message = f"step {self.state.step + 1}: from here on eager: {reason}"
        self._messages.append(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def tolerance(dtype: torch.dtype) -> float:
    """Largest accepted relative difference of compiled and eager gradients, whose sums have different orders.

    Args:
        dtype: floating-point type of the run.

    Returns:
        The relative difference.
    """
    return 1e-8 if dtype == torch.float64 else 1e-3


def choose_mode(
    requested: Literal["auto", "always", "never"],
    step: LossAndGradient,
    microbatches: Sequence[MicroBatch],
    weights: Mapping[str, float],
    *,
    steps: int,
    native: bool,
) -> Decision:
    """Measure eager and compiled steps, and set `step` to the faster mode.

    Parameters, their gradients, running statistics and the state of random generators do not change.

    Args:
        requested: "auto" decides by time; "always" and "never" are requests.
        step: loss and gradient, eager.
        microbatches: structures of one step.
        weights: weight of each loss term by name, without ramps.
        steps: number of remaining steps.
        native: whether the potential is made of Hesse's networks (others are compiled with "always" only).

    Returns:
        The decision.

    Raises:
        CompilationError: "always" is requested, and the potential cannot be compiled, or compiled gradients are wrong.
    """
    if requested == "never":
        return Decision("eager", "compile: never")
    if requested == "auto" and not native:
        return Decision("eager", "not one of Hesse's networks; `hesse check` shows whether compile: always is possible")
    if any(term.quantity == "hessian" and weights.get(term.name, 0.0) > 0 for term in step.loss):
        return _eager_or_raise(requested, "full Hessians are not compiled")
    with state_restored(step):
        eager_seconds = math.inf if requested == "always" else _step_seconds(step, microbatches, weights)
        if requested == "auto" and eager_seconds * steps * EXPECTED_SAVING < EXPECTED_COMPILE_SECONDS:
            return Decision(
                "eager",
                f"{steps} steps of {1e3 * eager_seconds:.0f} ms are too short a run to save the time of compiling",
            )
        started = time.monotonic()
        try:
            step.compiled = CompiledLossAndGradient(step.potential, step.loss)
            reasons = [step.eager_reason(labels, weights) for _, labels in microbatches]
            # If all microbatches are evaluated eagerly, there is nothing to compare.
            difference = math.nan if all(reasons) else max_relative_difference(step, microbatches, weights)
        except CompilationError as error:
            step.compiled = None
            return _eager_or_raise(requested, f"it cannot be compiled ({error})")
        if all(reasons):
            step.compiled = None
            return _eager_or_raise(requested, "; ".join(dict.fromkeys(reasons)) or "there is no batch to compare with")
        compile_seconds = time.monotonic() - started
        limit = tolerance(dtype_and_device(step.potential)[0])
        if not difference <= limit:
            step.compiled = None
            return _eager_or_raise(
                requested, f"compiled gradients differ from eager ones by {difference:.1e}, more than {limit:.0e}"
            )
        compiled_seconds = _step_seconds(step, microbatches, weights)
        if requested == "auto" and compiled_seconds > 0.95 * eager_seconds:
            step.compiled = None
            return Decision(
                "eager", f"compiled, a step takes {1e3 * compiled_seconds:.0f} ms, eager {1e3 * eager_seconds:.0f} ms"
            )
    comparison = "" if requested == "always" else f" against {1e3 * eager_seconds:.0f} ms eager"
    return Decision(
        "compiled",
        f"{1e3 * compiled_seconds:.0f} ms a step{comparison}, after {compile_seconds:.0f} s of compiling; gradients "
        f"agree to {difference:.0e}",
    )


def _eager_or_raise(requested: str, reason: str) -> Decision:
    """Eager steps for this reason, or an error if compiled ones are requested."""
    if requested == "always":
        raise CompilationError(f"compile: always, but {reason}. Use compile: auto, or never.")
    return Decision("eager", reason)


def max_relative_difference(
    step: LossAndGradient,
    microbatches: Sequence[MicroBatch],
    weights: Mapping[str, float],
    counts: Mapping[str, Tensor] | None = None,
) -> float:
    """Largest relative difference between compiled and eager evaluation.

    Args:
        step: loss and gradient, with a compiled function.
        microbatches: structures to compare for.
        weights: weight of each loss term by name.
        counts: see `LossAndGradient`; None: those of `microbatches`.

    Returns:
        The maximum over the loss and the gradients of all parameters. The difference of a gradient is relative to its
        norm, or to a thousandth of the norm of the full gradient, whichever is larger.
    """
    counts = sum_counts(step.loss, microbatches, weights) if counts is None else counts
    compiled, step.compiled = step.compiled, None
    with state_restored(step):
        eager_loss, eager_gradients = _gradient(step, microbatches, weights, counts)
        step.compiled = compiled
        compiled_loss, compiled_gradients = _gradient(step, microbatches, weights, counts)
    norms = torch.stack([gradient.norm() for gradient in eager_gradients])
    floor = 1e-3 * norms.norm()
    differences = torch.stack([(a - b).norm() for a, b in zip(compiled_gradients, eager_gradients, strict=True)])
    largest = float((differences / torch.maximum(norms, floor).clamp(min=1e-30)).max())
    loss = float((compiled_loss - eager_loss).abs() / eager_loss.abs().clamp(min=1e-30))
    return max(largest, loss)


def _gradient(
    step: LossAndGradient,
    microbatches: Sequence[MicroBatch],
    weights: Mapping[str, float],
    counts: Mapping[str, Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradient in each parameter."""
    parameters = step.trainable_parameters()
    for parameter in parameters:
        parameter.grad = None
    loss, _ = step(microbatches, weights, counts)
    return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def _step_seconds(step: LossAndGradient, microbatches: Sequence[MicroBatch], weights: Mapping[str, float]) -> float:
    """Median time of a step, after one that is not counted. On a CPU it is processor time per thread, which does not
    depend on other processes of the machine."""
    on_cpu = dtype_and_device(step.potential)[1].type == "cpu"
    clock, n_threads = (time.process_time, torch.get_num_threads()) if on_cpu else (time.perf_counter, 1)
    times, counts = [], sum_counts(step.loss, microbatches, weights)
    for _ in range(REPEATS + 1):
        started = clock()
        loss, _ = step(microbatches, weights, counts)
        loss.item()  # waits for the device
        times.append((clock() - started) / n_threads)
    return statistics.median(times[1:])


@contextmanager
def state_restored(step: LossAndGradient) -> Iterator[None]:
    """Context for trial steps: gradients, buffers and random generators are restored at the end. Compile failures are
    raised inside.

    Args:
        step: loss and gradient.
    """
    potential = step.potential
    gradients = [parameter.grad for parameter in potential.parameters()]
    for parameter in potential.parameters():
        parameter.grad = None
    buffers = [buffer.clone() for buffer in potential.buffers()]
    on_compile_failure, step.on_compile_failure = step.on_compile_failure, None
    _, device = dtype_and_device(potential)
    fork_options: dict[str, Any] = {"devices": []}
    if device.type != "cpu":
        fork_options = {"devices": [device], "device_type": device.type}
    try:
        with torch.random.fork_rng(**fork_options):
            yield
    finally:
        step.on_compile_failure = on_compile_failure
        for parameter, gradient in zip(potential.parameters(), gradients, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in zip(potential.buffers(), buffers, strict=True):
                buffer.copy_(value)
