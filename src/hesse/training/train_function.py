"""`hesse.train`: a run in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from hesse.datasets import DatasetLike
from hesse.datasets.opening import TrainingSource, as_dataset_like
from hesse.engines import PotentialLike
from hesse.errors import RequestError
from hesse.runtime.devices import disable_malloc_trim
from hesse.runtime.settings import validate_config
from hesse.training.config import RunConfig, TrainConfig
from hesse.training.distributed import Communicator, init_distributed
from hesse.training.initial_model import resolve_initial_potential
from hesse.training.run_folder import open_run_folder
from hesse.training.train_result import TrainResult
from hesse.training.trainer import Trainer

__all__ = ["train", "train_in_open_folder"]


def train(
    training: TrainingSource,
    validation: TrainingSource | None = None,
    config: TrainConfig | Mapping[str, Any] | None = None,
    *,
    output: str | Path,
    potential: PotentialLike | None = None,
    replay: TrainingSource | None = None,
    restart: bool = False,
    quiet: bool = False,
    communicator: Communicator | None = None,
) -> TrainResult:
    """Train a potential. The same call continues a run that was interrupted, and trains on if `config.steps` grows.

    `output` receives `model.hesse` (best), `last.hesse`, `checkpoint.safetensors` and `metrics.jsonl`. A potential that
    is not made of Hesse's networks is saved as `model.safetensors` (parameters), and an adapted one also in the format
    of its framework.

    Args:
        training: data set, its file or a list of files, or ASE Atoms. Labels are needed for all loss weights above
            zero; absent labels are masked. Structures whose labels are flagged as suspect are left out unless
            `config.include_flagged`.
        validation: the same, to select the best model; None: the last model is returned.
        config: settings of the run, as a TrainConfig or a mapping as in a configuration file; None: the defaults.
        output: folder of the run; created if necessary.
        potential: potential to train instead of a new network as in `config.model`: one of Hesse's networks, an
            adapter, any `Potential`, or its name or file. It is copied and converted to `config.dtype` and
            `config.device`; parameters with `requires_grad` off do not change; its energies per element do not change
            unless `config.reference_energies` is "fit".
        replay: further data, as `training`: after each step on training data `config.replay.steps` steps (4 by default)
            are done on these, without curvature terms, against forgetting. Energies per element are fitted to them if
            they have all elements and the same level of theory.
        restart: begin again although the folder contains a run.
        quiet: no progress on standard error.
        communicator: the processes that train together; None: those of the job in which this process was started
            (torchrun, srun), or this process alone. All of them call this function with the same arguments, and
            `output` is a folder that all of them can access.

    Returns:
        The best model, its file and its validation errors.

    Raises:
        MissingLabelError: no training structure has a label whose weight is above zero, or no validation structure has
            any of these labels.
        UnknownElementError: validation data contain an element that training data lack, or training data one that the
            given potential does not know.
        FileFormatError: the folder contains a run with another configuration or other data, or a data set cannot be
            read.
        RequestError: another process trains in this folder; the given potential cannot be trained or differentiated; an
            argument of the wrong type.
        ConfigError: an invalid setting, fewer steps than the run has done, or a device that cannot be used on this
            machine.
        NonFiniteLossError: a loss or gradient is not finite; the message names the structures. The last checkpoint is
            valid.
        InterruptedRunError: SIGINT or SIGTERM; the state is saved.
        ProcessLostError: another process of the job ended.
    """
    config = _as_config(config)
    training = as_dataset_like(training)
    validation = None if validation is None else as_dataset_like(validation)
    replay = None if replay is None else as_dataset_like(replay)
    if not isinstance(output, str | Path):
        raise RequestError(f"output: expected the path of a folder, got {type(output).__name__}")
    folder = Path(output)
    with ExitStack() as stack:
        if communicator is None:
            communicator = stack.enter_context(init_distributed(config.device))
        communicator.device(config.device)
        stack.enter_context(open_run_folder(folder, communicator))
        return train_in_open_folder(
            training,
            validation,
            config,
            folder,
            communicator,
            potential=potential,
            replay=replay,
            restart=restart,
            quiet=quiet,
        )


def train_in_open_folder(
    training: DatasetLike,
    validation: DatasetLike | None,
    config: TrainConfig,
    folder: Path,
    communicator: Communicator,
    *,
    potential: PotentialLike | None = None,
    replay: DatasetLike | None = None,
    restart: bool = False,
    quiet: bool = False,
    on_start: Callable[[], None] | None = None,
    on_other_steps: Callable[[], None] | None = None,
) -> TrainResult:
    """Train in a folder that this job has locked.

    Args:
        training: training data.
        validation: validation data, if any.
        config: settings of the run.
        folder: its folder, see `open_run_folder`.
        communicator: the processes that train together.
        potential: potential to train instead of a new network.
        replay: replay data, if any.
        restart: begin again although the folder contains a run.
        quiet: no progress on standard error.
        on_start: called in process 0 when everything has been checked, before anything in the folder changes.
        on_other_steps: called in process 0 if a run goes on with another number of steps.

    Returns:
        The best model, its file and its validation errors.

    Raises:
        HesseError: see `train`.
    """
    device = communicator.device(config.device)
    if config.cpu_threads is not None:
        torch.set_num_threads(config.cpu_threads)
    disable_malloc_trim()
    # The loss of curvature has third derivatives: TF32 matrix products are not precise enough for them.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    initial_potential = resolve_initial_potential(config, potential, folder)
    trainer = Trainer(
        training,
        validation,
        config,
        folder,
        initial_potential,
        communicator,
        device,
        replay=replay,
        restart=restart,
        on_start=on_start,
    )
    if on_other_steps is not None and trainer.previous_steps != config.steps:
        communicator.run_on_rank_zero(on_other_steps)
    return trainer.fit(quiet=quiet)


def _as_config(config: TrainConfig | Mapping[str, Any] | None) -> TrainConfig:
    if isinstance(config, RunConfig):
        raise RequestError(
            "config: this is the configuration of a whole run (hesse.load_config), with data and an output folder that "
            "hesse.train does not read. hesse.training.run_from_config(config) trains it, or give a hesse.TrainConfig"
        )
    if isinstance(config, TrainConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return validate_config(TrainConfig, config or {}, source="config")
    raise RequestError(
        f"expected a hesse.TrainConfig or a mapping of options, got {type(config).__name__}. To train from a "
        "configuration file, use `hesse train FILE`."
    )
