"""The training loop.

All random numbers are functions of (seed, epoch or step, structure id). There is no generator state, so that a run that
was interrupted anywhere and continued has the same batches, probes and learning rates as an uninterrupted one.
"""

from __future__ import annotations

import copy
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hesse.datasets import DatasetLike
from hesse.errors import (
    InterruptedRunError,
    NonFiniteLossError,
    ProcessLostError,
)
from hesse.potential import Potential
from hesse.runtime.progress import track
from hesse.runtime.signals import deferred_signals
from hesse.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from hesse.training.compile_policy import CompilePolicy
from hesse.training.config import TrainConfig
from hesse.training.data_inspection import inspect_data
from hesse.training.distributed import Communicator
from hesse.training.initial_model import (
    build_initial_potential,
    fits_reference_energies,
    start_digest,
)
from hesse.training.loss_setup import set_up_loss
from hesse.training.model_writer import ModelWriter
from hesse.training.non_finite import diagnose_non_finite
from hesse.training.replay_data import broad_data, replay_messages
from hesse.training.run_identity import other_steps_messages, run_identity
from hesse.training.run_log import NullLogger, RunLogger, last_training_terms
from hesse.training.run_setup import check_data, weight_decay_groups
from hesse.training.schedules import derive_seed, learning_rate, loss_weights_at
from hesse.training.start_messages import idle_messages, start_messages
from hesse.training.step import LossAndGradient, MicroBatch
from hesse.training.step_batches import StepBatches
from hesse.training.train_result import TrainResult
from hesse.training.validation import ValidationMetrics, Validator
from hesse.training.validation_messages import validation_messages

__all__ = ["Trainer"]


def _n_structures(datasets: Sequence[DatasetLike | None]) -> int:
    """Number of structures in several data sets."""
    return sum(0 if dataset is None else len(dataset) for dataset in datasets)


class Trainer:
    """One training run: its state, and the loop over its steps.

    Args:
        training: training data.
        validation: validation data, if any.
        config: settings of the run.
        folder: its folder.
        initial_potential: the potential to start from; None for a new network.
        communicator: the processes that train together.
        device: device of this process.
        replay: replay data, if any.
        restart: begin again although the folder contains a run.
        on_start: called in process 0 when everything has been checked, before anything in the folder changes.
    """

    def __init__(
        self,
        training: DatasetLike,
        validation: DatasetLike | None,
        config: TrainConfig,
        folder: Path,
        initial_potential: Potential | None,
        communicator: Communicator,
        device: str,
        *,
        replay: DatasetLike | None = None,
        restart: bool,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        self.n_suspect_skipped = 0
        if not config.include_flagged:
            datasets = (training, validation, replay)
            training = training.without_suspects()
            validation = None if validation is None else validation.without_suspects()
            replay = None if replay is None else replay.without_suspects()
            self.n_suspect_skipped = _n_structures(datasets) - _n_structures((training, validation, replay))
        check_data(training, validation, config, replay)
        broad = broad_data(training, replay)
        self.training, self.config, self.folder, self.communicator = training, config, folder, communicator
        device_config = config.model_copy(update={"device": device})
        self.model = build_initial_potential(device_config, broad, initial_potential)
        self.fitted_to = broad if fits_reference_energies(config, initial_potential) else None
        communicator.broadcast([*self.model.parameters(), *self.model.buffers()])
        self.batches = StepBatches(training, replay, device_config, self.model.cutoff, communicator)
        self.loss = config.make_loss()
        self.gradient = LossAndGradient(self.model, self.loss, communicator=communicator)
        self.ema_model = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(weight_decay_groups(self.model, config.optimizer.weight_decay), lr=0.0)
        self.identity = run_identity(config, training, validation, start_digest(config, initial_potential), replay)
        self.checkpoint = folder / "checkpoint.safetensors"
        self.state, self.previous_steps = TrainState(), config.steps
        communicator.check_equal(self.identity, "the processes of this job were given different configurations or data")
        if communicator.run_on_rank_zero(lambda: self.checkpoint.exists() and not restart):
            self.state, self.previous_steps = load_checkpoint(
                self.checkpoint, self.model, self._ema_state(), self.optimizer, self.identity
            )
        communicator.check_equal(self.state.step, f"the processes of this job do not see the same files in {folder}")
        self.scores: ValidationMetrics | None = None
        self.weights = self.state.weights or self.loss.weights()
        self.writer = ModelWriter(folder, self.model, self.ema_model, training, config, communicator, broad)
        self.validator = (
            None if validation is None else Validator(validation, config, device, communicator, self.writer)
        )
        self.compile_policy = CompilePolicy(self.gradient, self.state, communicator)

        def start() -> None:  # nothing in the folder has changed so far: the request may have been refused
            if restart:
                self.checkpoint.unlink(missing_ok=True)
            if on_start is not None:
                on_start()

        communicator.run_on_rank_zero(start)

    def _ema_state(self) -> dict[str, Tensor]:
        return dict(self.ema_model.state_dict())

    def fit(self, *, quiet: bool) -> TrainResult:
        """Train to the end, or until SIGINT or SIGTERM.

        Args:
            quiet: no progress on standard error.

        Returns:
            The best model, its file and its validation errors.

        Raises:
            InterruptedRunError, ProcessLostError, NonFiniteLossError: see `train`.
        """
        config, state = self.config, self.state
        is_rank_zero = self.communicator.is_rank_zero
        log = (
            RunLogger(self.folder, from_step=state.step, tensorboard=config.tensorboard)
            if is_rank_zero
            else NullLogger()
        )
        started = time.monotonic() - state.seconds, time.process_time() - state.processor_seconds
        finished = state.step >= config.steps or self._should_stop()
        if finished and is_rank_zero and not quiet:
            print(f"{self.folder}: complete after {state.step} steps, nothing is trained", file=sys.stderr)
        try:
            with (
                self.batches,
                deferred_signals() as caught,
                track("training", config.steps, quiet=quiet or not is_rank_zero, done=state.step) as advance,
            ):
                if state.step == 0:
                    self._before_first_step(log, quiet=quiet or not is_rank_zero)
                elif self.previous_steps != config.steps:
                    self._with_other_steps(log, quiet=quiet or not is_rank_zero)
                if not finished:
                    advance(0, self.compile_policy.decide(config, self._example_microbatches, self.weights))
                while not finished:
                    for text in self.compile_policy.pop_messages():
                        log.message(state.step, text)
                    row = self._step()
                    state.seconds = time.monotonic() - started[0]
                    state.processor_seconds = time.process_time() - started[1]
                    times = {"seconds": state.seconds, "processor_seconds": state.processor_seconds}
                    log.write("train", state.step, **row, **times)
                    is_last = state.step >= config.steps
                    if self.validator is not None and (is_last or state.step % config.validate_every == 0):
                        self.scores = self.validator.validate(self.ema_model, self.weights, state)
                        log.write("validation", state.step, **self.scores.as_row())
                    finished = is_last or self._should_stop()
                    if finished:
                        self._write_hessian_errors(log)
                    advance(1, self._status(row))
                    stop_signal = self.communicator.all_reduce_max(caught[0] if caught else 0)
                    if finished or stop_signal or state.step % config.checkpoint_every == 0:
                        self._save()
                    if stop_signal and not finished:
                        raise InterruptedRunError(
                            f"stopped by {signal.Signals(stop_signal).name} after step {state.step} of {config.steps}; "
                            f"the state is in {self.checkpoint}. The same command continues the run."
                        )
        except ProcessLostError as error:
            raise ProcessLostError(
                f"{error}. {self._checkpoint_hint()}; the same command continues the run."
            ) from error
        finally:
            log.close()
        return self._result()

    def _before_first_step(self, log: RunLogger | NullLogger, *, quiet: bool) -> None:
        """Check and record the loss terms, and measure their weights if that is requested. A run that is interrupted
        before its first checkpoint does this again."""
        held_out = None if self.validator is None else self.validator.data
        report = self.communicator.run_on_rank_zero(lambda: inspect_data(self.training, held_out, self.config))
        balance = self.config.weights.balance
        self.weights, texts = set_up_loss(
            self.gradient,
            self.batches.loader,
            self.training,
            replay=self.batches.replay_source,
            fresh_probes=self.config.probe.source == "fresh",
            balance=balance,
        )
        self.state.weights = self.weights if balance else None
        start = start_messages(self.training, held_out, self.config, fitted_to=self.fitted_to)
        if not quiet:  # not in the record, which is the same for all numbers of processes
            for text in idle_messages(len(self.training), self.config.batch.structures, self.communicator.size):
                print(text, file=sys.stderr)
        for text in (
            *report,
            *replay_messages(self.training, self.batches.replay),
            *texts,
            *start,
            *validation_messages(self.training, held_out),
        ):
            log.message(0, text)
            if not quiet:
                print(text, file=sys.stderr)
        self._write_hessian_errors(log)

    def _with_other_steps(self, log: RunLogger | NullLogger, *, quiet: bool) -> None:
        """Tell what another number of steps means. Whether compiling pays off is decided anew for a longer run."""
        state, config = self.state, self.config
        if config.compile == "auto" and config.steps > self.previous_steps and not state.compiled:
            state.compiled = None
        for text in other_steps_messages(config, self.previous_steps, state.step, stopped=self._should_stop()):
            log.message(state.step, text)
            if not quiet:
                print(text, file=sys.stderr)

    def _write_hessian_errors(self, log: RunLogger | NullLogger) -> None:
        """Add a row with the errors of the full Hessians of the averaged model, if there are labels to compare with."""
        errors = {} if self.validator is None else self.validator.hessian_errors(self.ema_model)
        if errors:
            log.write("hessian", self.state.step, **errors)

    def _should_stop(self) -> bool:
        return self.validator is not None and self.validator.should_stop(self.state)

    def _example_microbatches(self) -> list[MicroBatch]:
        """Structures of the next step, all of them in this process."""
        return self.batches.example(self.state).load(self.state.step, whole=True)

    def _step(self) -> dict[str, float]:
        """One step of the optimizer; returns the row for the record."""
        config, state = self.config, self.state
        batch = self.batches.next(state)
        weights = batch.weights(
            loss_weights_at(
                self.loss, self.weights, config.weight_ramps, state.step, config.steps, config.curvature.every_n_steps
            ),
            {term.name: term.quantity for term in self.loss},
        )
        rate = learning_rate(config.optimizer.learning_rate, state.step, config.steps, config.schedule, state.plateau)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng(devices=[]):  # for networks with dropout
            rank = self.communicator.rank
            torch.manual_seed(derive_seed(config.seed, state.step, *([rank] if rank else [])))
            microbatches = batch.load(state.step)
            if self.gradient.compiled is not None:
                self.compile_policy.verify(microbatches, weights)
            total, terms = self.gradient(microbatches, weights)
        max_norm = config.optimizer.max_grad_norm or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        # One transfer from the device for all numbers.
        loss, norm, *values = torch.stack(
            [value.to(torch.float64) for value in (total, grad_norm, *terms.values())]
        ).tolist()
        if not math.isfinite(loss) or not math.isfinite(norm):
            message = diagnose_non_finite(
                self.gradient,
                batch.loader,
                batch.indices.tolist(),
                state.step,
                weights,
                batch.data.ids,
                self._checkpoint_hint(),
            )
            raise NonFiniteLossError(message)
        self.optimizer.step()
        self.batches.count(state, batch)
        _update_moving_average(self.ema_model, self.model, state.step, config.optimizer.ema_decay or 0.0)
        return {"loss": loss, **dict(zip(terms, values, strict=True)), "lr": rate}

    def _status(self, row: Mapping[str, float]) -> str:
        """Text beside the progress: the loss, validation errors, and the terms of this step that have none."""
        known = {} if self.scores is None else self.scores.rmse
        alone = [
            f"{term.name} {row[term.name]:.3g}"
            for term in self.loss
            if term.name in row and term.quantity not in known and term.entry.role == "label"
        ]
        terms = f" ({', '.join(alone)})" if alone else ""
        return f"loss {row['loss']:.3g}{terms}" + (f"  {self.scores.summary()}" if self.scores else "")

    def _save(self) -> None:
        """Write a checkpoint."""
        self.compile_policy.synchronize()
        # Different machines round differently: this makes the parameters equal again.
        self.communicator.broadcast([*self.model.parameters(), *self.model.buffers()])
        self.communicator.run_on_rank_zero(
            lambda: save_checkpoint(
                self.checkpoint, self.state, self.model, self._ema_state(), self.optimizer, self.identity
            )
        )

    def _result(self) -> TrainResult:
        """Save the last model, and load the best one."""
        state = self.state
        if self.scores is None and self.validator is not None:  # continued after the last step
            self.scores = self.validator.errors(self.ema_model, self.weights)
        self.writer.write("last", state.step, {} if self.scores is None else self.scores.as_row())
        if state.best_step < 0:  # no validation: the last model is the best one
            self.writer.write("model", state.step, {})
        potential, model_file, provenance = self.writer.load_best()
        return TrainResult(
            potential=potential,
            model_file=model_file,
            steps=state.step,
            best_step=state.best_step if state.best_step >= 0 else state.step,
            scores=provenance["metrics"],
            seconds=state.seconds,
            n_suspect_skipped=self.n_suspect_skipped,
            training_terms=self.communicator.run_on_rank_zero(
                lambda: last_training_terms(self.folder / "metrics.jsonl", [t.name for t in self.loss])
            ),
        )

    def _checkpoint_hint(self) -> str:
        """Sentence that names the file of the last valid state."""
        return f"The last good state is in {self.checkpoint}" if self.checkpoint.exists() else "No state was saved yet"


def _update_moving_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
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
