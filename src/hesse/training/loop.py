"""The one training loop.

Everything random is a function of (seed, epoch or step, structure id): no generator state is carried along, so a run
that was interrupted anywhere and resumed meets the same batches, probes and rates as one that was not.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesse import __version__
from hesse.datasets import TrainingData
from hesse.devices import keep_freed_memory
from hesse.errors import (
    InterruptedRunError,
    LostProcessError,
    NonFiniteLossError,
    WriteError,
)
from hesse.files import exclusive
from hesse.potential import Potential
from hesse.progress import track
from hesse.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from hesse.training.compiling import StepMode
from hesse.training.config import TrainConfig
from hesse.training.feed import Feed
from hesse.training.log import NoLog, RunLog
from hesse.training.processes import Processes, joined
from hesse.training.schedules import learning_rate, weights_at
from hesse.training.set_up import check_data, fingerprint_of, mixed_seed, parameter_groups
from hesse.training.shared_step import SharedStep
from hesse.training.signals import caught_signals
from hesse.training.start import (
    given_potential,
    identity_of,
    read_best,
    starting_potential,
    write_potential,
)
from hesse.training.step import GradientStep, Part
from hesse.training.validation import Scores, validate

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        potential: the best model by validation loss (the last one without validation data), averaged weights.
        model_file: where it is stored.
        steps: steps done in all.
        best_step: the step of the best validation.
        scores: validation errors of the best model, eV and Å.
        seconds: wall time of all sessions of the run.
        left_out: structures flagged suspect that were neither trained on nor validated by.
    """

    potential: Potential
    model_file: Path
    steps: int
    best_step: int
    scores: Mapping[str, float]
    seconds: float
    left_out: int = 0


def train(
    training: TrainingData,
    validation: TrainingData | None = None,
    config: TrainConfig | None = None,
    *,
    output: str | Path,
    potential: Potential | None = None,
    restart: bool = False,
    quiet: bool = False,
    processes: Processes | None = None,
) -> TrainResult:
    """Train a potential. Called again with the same arguments, it continues where it was interrupted.

    `output` receives `model.hesse` (best), `last.hesse`, `checkpoint.safetensors` and `metrics.jsonl`. A potential that
    is not Hesse's own is kept as `model.safetensors` (weights), and an adapted one also in its framework's own format.

    Args:
        training: structures with the labels that the loss weights ask for; absent labels are masked. Structures whose
            labels are flagged suspect are left out, unless `config.include_suspect`; so are those of `validation`.
        validation: structures to choose the best model by; None to take the last.
        config: the run; defaults where None.
        output: folder of the run, made if missing.
        potential: what to train in place of a network built from `config.model`: one of Hesse's own, an adapter, or any
            `Potential`. It is copied, then takes `config.dtype` and `config.device`; parameters with `requires_grad`
            off stay as they are; element references are kept unless `config.references` is "fit".
        restart: begin again although the folder holds a run.
        quiet: no progress on standard error.
        processes: who trains together; None for those of the job that this process was started in (by torchrun, srun),
            or this one alone. All call this function with the same arguments, and `output` is a folder that all see.

    Raises:
        MissingLabelError: a loss weight is above zero and no training structure holds the label, or no validation
            structure holds any of them.
        UnknownElementError: validation data hold an element that training data lack, or training data one that the
            given potential does not know.
        FileFormatError: the folder holds a run with another configuration or other data.
        RequestError: another process trains in this folder; the given potential cannot be trained or differentiated.
        ConfigError: the device cannot be used here.
        NonFiniteLossError: a loss or gradient is not finite; names the structures; the last checkpoint is whole.
        InterruptedRunError: SIGINT or SIGTERM came; the state is saved.
        LostProcessError: another process of the job ended.
    """
    config = config or TrainConfig()
    folder = Path(output)
    with ExitStack() as stack:
        if processes is None:
            processes = stack.enter_context(joined(config.device))
        device = processes.device(config.device)
        processes.of_first(lambda: _open_folder(folder, stack))
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        keep_freed_memory()
        # Curvature differentiates three times: reduced precision in matrix products ruins it.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        given = given_potential(config, potential, folder)
        run = _Run(training, validation, config, folder, given, processes, device, restart=restart)
        return run.go(quiet=quiet)


def _open_folder(folder: Path, stack: ExitStack) -> None:
    """Make the folder of a run where it is missing, and keep others out of it until the run ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the run folder {folder}: {error.strerror}") from error
    stack.enter_context(exclusive(folder))


def _total(parts: Sequence[TrainingData | None]) -> int:
    """Structures of all parts."""
    return sum(0 if part is None else len(part) for part in parts)


class _Run:
    """One run: its parts, and the state that moves."""

    def __init__(
        self,
        training: TrainingData,
        validation: TrainingData | None,
        config: TrainConfig,
        folder: Path,
        given: Potential | None,
        processes: Processes,
        device: str,
        *,
        restart: bool,
    ) -> None:
        self.left_out = 0
        if not config.include_suspect:
            offered = (training, validation)
            training = training.without_suspects()
            validation = None if validation is None else validation.without_suspects()
            self.left_out = _total(offered) - _total((training, validation))
        check_data(training, validation, config)
        self.training, self.validation, self.config, self.folder = training, validation, config, folder
        self.processes, self.device, self.dtype = processes, device, getattr(torch, config.dtype)
        here = config.model_copy(update={"device": device})
        self.model = starting_potential(here, training, given)
        processes.copy_from_first([*self.model.parameters(), *self.model.buffers()])
        self.feed = Feed(training, here, self.model.cutoff)
        self.sizes = training.n_atoms.tolist()
        self.gradient = GradientStep(self.model)
        self.shared = SharedStep(self.gradient, processes)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, config.optimiser.weight_decay), lr=0.0)
        self.fingerprint = fingerprint_of(config, training, validation, identity_of(given))
        self.checkpoint = folder / "checkpoint.safetensors"
        self.progress = Progress()
        processes.require_same(
            self.fingerprint, "the processes of this job were given different configurations or data"
        )
        if processes.of_first(lambda: self._can_go_on(restart=restart)):
            self.progress = load_checkpoint(
                self.checkpoint, self.model, self._average_state(), self.optimiser, self.fingerprint
            )
        processes.require_same(self.progress.step, f"the processes of this job do not see the same files in {folder}")
        self.scores: Scores | None = None
        self.mode = StepMode(self.gradient, self.progress, processes)

    def _can_go_on(self, *, restart: bool) -> bool:
        """Clear away what is left over from before; whether there is a state to go on from."""
        for half_written in self.folder.glob(".*.part*"):  # by a process that was killed
            half_written.unlink(missing_ok=True)
        if restart:
            self.checkpoint.unlink(missing_ok=True)
        return self.checkpoint.exists()

    def _average_state(self) -> dict[str, Tensor]:
        return dict(self.average.state_dict())

    # --- the loop ------------------------------------------------------------------------------------------------

    def go(self, *, quiet: bool) -> TrainResult:
        config, progress = self.config, self.progress
        first = self.processes.first
        log = RunLog(self.folder, from_step=progress.step, tensorboard=config.tensorboard) if first else NoLog()
        started, before = time.monotonic(), progress.seconds
        finished = progress.step >= config.steps or self._stopped_early()
        try:
            with (
                self.feed,
                caught_signals() as caught,
                track("training", config.steps, quiet=quiet or not first, done=progress.step) as advance,
            ):
                if not finished:
                    advance(0, self.mode.settle(config, self._first_parts))
                while not finished:
                    for text in self.mode.news():
                        log.note(progress.step, text)
                    row = self._step()
                    progress.seconds = before + time.monotonic() - started
                    log.write("train", progress.step, **row, seconds=progress.seconds)
                    last = progress.step >= config.steps
                    if self.validation is not None and (last or progress.step % config.validate_every == 0):
                        scores = self._validate()
                        log.write("validation", progress.step, **scores.as_row())
                        finished = self._stopped_early()
                    finished = finished or last
                    note = f"loss {row['loss']:.3g}" + (f"  {self.scores.summary()}" if self.scores else "")
                    advance(1, note)
                    asked = self.processes.largest(caught[0] if caught else 0)
                    if finished or asked or progress.step % config.checkpoint_every == 0:
                        self._save()
                    if asked and not finished:
                        raise InterruptedRunError(
                            f"stopped by {signal.Signals(asked).name} after step {progress.step} of {config.steps}; "
                            f"the state is in {self.checkpoint}. The same command continues the run."
                        )
        except LostProcessError as error:
            raise LostProcessError(f"{error}. {self._kept()}; the same command continues the run.") from error
        finally:
            log.close()
        return self._result()

    def _first_parts(self) -> list[Part]:
        """The next step's structures, to try on."""
        order = self.feed.epoch(self.progress.epoch)
        return self.feed.fetch(order[min(self.progress.batch, len(order) - 1)], self.progress.step)

    def _step(self) -> dict[str, float]:
        """One step of the optimiser; returns what goes into the record."""
        config, progress = self.config, self.progress
        order = self.feed.epoch(progress.epoch)
        if progress.batch >= len(order):
            progress.epoch, progress.batch = progress.epoch + 1, 0
            order = self.feed.epoch(progress.epoch)
        indices = order[progress.batch]
        weights = weights_at(config.weights, config.ramps, progress.step, config.steps, config.curvature.every)
        rate = learning_rate(
            config.optimiser.learning_rate, progress.step, config.steps, config.schedule, progress.plateau
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        with torch.random.fork_rng(devices=[]):  # dropout in somebody else's network
            rank = self.processes.rank
            torch.manual_seed(mixed_seed(config.seed, progress.step, *([rank] if rank else [])))
            mine = self.processes.share(indices, self.sizes)
            parts = self.feed.fetch(mine, progress.step, whole=indices) if mine else []
            self.mode.compare(parts, weights)
            total, terms = self.shared(parts, weights)
        limit = config.optimiser.clip or math.inf
        size = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        # One look at the device for all numbers.
        loss, norm, *values = torch.stack(
            [value.to(torch.float64) for value in (total, size, *terms.values())]
        ).tolist()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise NonFiniteLossError(self._blame(indices, weights))
        self.optimiser.step()
        progress.step, progress.batch = progress.step + 1, progress.batch + 1
        self._update_average()
        return {"loss": loss, **dict(zip(terms, values, strict=True)), "lr": rate}

    def _update_average(self) -> None:
        decay = self.config.optimiser.ema or 0.0
        step = self.progress.step
        decay = min(decay, (1.0 + step) / (10.0 + step))  # short memory at the start, where weights move fast
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
            # Other frameworks keep tables of whole numbers as parameters.
            means, values = zip(*((a, b) for a, b in pairs if b.is_floating_point()), strict=True)
            torch.optim.swa_utils.get_ema_multi_avg_fn(decay)(list(means), list(values), None)
            for mine, statistic in zip(self.average.buffers(), self.model.buffers(), strict=True):
                mine.copy_(statistic)  # running statistics, where a network has them

    # --- judging and keeping -------------------------------------------------------------------------------------

    def _scores(self) -> Scores:
        assert self.validation is not None
        self.processes.copy_from_first(self.average.buffers())  # running statistics are those of its structures
        config, weights = self.config, self.config.weights
        if config.probe.source == "fresh" and self.validation.holds("hessian"):
            # Fresh probes estimate the Hessian term; here it is taken itself.
            weights = weights.model_copy(update={"hvp": 0.0, "hessian": weights.hessian + weights.hvp})
        return validate(
            self.average, self.validation, weights, dtype=self.dtype, device=self.device,
            max_atoms=config.batch.atoms, processes=self.processes,
        )  # fmt: skip

    def _validate(self) -> Scores:
        progress, config = self.progress, self.config
        scores = self._scores()
        if not math.isfinite(scores.loss):
            raise NonFiniteLossError(
                f"step {progress.step}: the validation loss is not a finite number. The last good state is in "
                f"{self.checkpoint}; lower optimiser.learning_rate, or look at the validation labels with `hesse info`."
            )
        progress.plateau.see(scores.loss, config.schedule)
        if scores.loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.waited = scores.loss, progress.step, 0
            self._write_model("model", scores)
        else:
            progress.waited += 1
        self.scores = scores
        return scores

    def _stopped_early(self) -> bool:
        config, progress = self.config, self.progress
        if config.early_stopping is not None and progress.waited >= config.early_stopping:
            return True
        plateau = config.schedule.kind == "plateau"
        rate = config.optimiser.learning_rate * progress.plateau.factor
        return plateau and rate < config.schedule.stop_below

    def _save(self) -> None:
        self.mode.agree()
        # Machines that are not alike round differently: this is where all are brought back to one state.
        self.processes.copy_from_first([*self.model.parameters(), *self.model.buffers()])
        self.processes.of_first(
            lambda: save_checkpoint(
                self.checkpoint, self.progress, self.model, self._average_state(), self.optimiser, self.fingerprint
            )
        )

    def _write_model(self, stem: str, scores: Scores | None) -> None:
        self.processes.of_first(lambda: self._write(stem, scores))

    def _write(self, stem: str, scores: Scores | None) -> None:
        provenance: dict[str, Any] = {
            "data_hash": self.training.data_hash(),
            "level": self.training.attributes.get("level", ""),
            "config": self.config.model_dump(mode="json"),
            "step": self.progress.step,
            "structures": len(self.training),
            "metrics": {} if scores is None else scores.as_row(),
            "torch": torch.__version__,
            "code_version": __version__,
        }
        # Files of other frameworks record what can be trained: that of the model, not of its mean.
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.requires_grad_(value.requires_grad)
        write_potential(self.folder, stem, self.average, provenance)
        self.average.requires_grad_(False)

    def _result(self) -> TrainResult:
        if self.scores is None and self.validation is not None:  # continued after its last step
            self.scores = self._scores()
        self._write_model("last", self.scores)
        progress = self.progress
        if progress.best_step < 0:  # never judged: the last model is the best known
            self._write_model("model", None)
        potential, file, provenance = read_best(self.folder, "model", self.model, self.processes)
        return TrainResult(
            potential=potential,
            model_file=file,
            steps=progress.step,
            best_step=progress.best_step if progress.best_step >= 0 else progress.step,
            scores=provenance["metrics"],
            seconds=progress.seconds,
            left_out=self.left_out,
        )

    def _blame(self, indices: list[int], weights: Mapping[str, float]) -> str:
        """Which structures of the batch have a loss or gradient that is not finite, one by one."""
        guilty = []
        for index in indices:
            self.optimiser.zero_grad(set_to_none=True)
            total, _ = self.gradient(self.feed.fetch([index], self.progress.step, whole=indices), weights)
            slopes = [p.grad for p in self.model.parameters() if p.grad is not None]
            finite = bool(torch.isfinite(total)) and all(bool(torch.isfinite(g).all()) for g in slopes)
            if not finite:
                guilty.append(self.training.ids[index])
        saved = self._kept()
        if not guilty:
            return (
                f"step {self.progress.step + 1}: the loss of the whole batch is not finite although that of each of "
                f"its structures is: the run diverged. {saved}; lower optimiser.learning_rate or optimiser.clip."
            )
        shown = ", ".join(f'"{name}"' for name in guilty[:5]) + (", ..." if len(guilty) > 5 else "")
        return (
            f"step {self.progress.step + 1}: loss or gradient is not a finite number for {len(guilty)} of "
            f"{len(indices)} structures: {shown}. {saved}. Look at these structures (labels, overlapping atoms); if "
            "they are sound, lower optimiser.learning_rate or use dtype float64."
        )

    def _kept(self) -> str:
        return f"The last good state is in {self.checkpoint}" if self.checkpoint.exists() else "No state was saved yet"
