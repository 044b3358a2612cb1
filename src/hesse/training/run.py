"""A run from files: read and split the data, record what was done, hand over to the loop."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import yaml

from hesse.datasets import Split, DatasetLike, open_dataset
from hesse.engines.potentials import with_base_folder
from hesse.errors import FileFormatError, WriteError
from hesse.files import atomic_write_text
from hesse.training.config import DataConfig, RunConfig, TrainConfig
from hesse.training.loop import TrainResult, train
from hesse.training.parse import load_config
from hesse.training.processes import Communicator, init_distributed

__all__ = ["run_from_config"]


def run_from_config(
    config: RunConfig, *, restart: bool = False, quiet: bool = False, communicator: Communicator | None = None
) -> TrainResult:
    """Do what a `RunConfig` says. The output folder also receives `config.yaml` and, where validation structures were
    held out of the training file, `split.json` with their ids (a continued run uses it again).

    `processes`: see `train`. All of them read the data; the first writes.

    Raises:
        RequestError: unreadable data, a split that does not fit; and all that `train` raises.
    """
    with ExitStack() as stack:
        if communicator is None:
            communicator = stack.enter_context(init_distributed(config.device))
        communicator.device(config.device)
        resuming = communicator.run_on_rank_zero(lambda: _is_resuming(config, restart=restart))
        training, validation = _load_data(config.data, config.output, config.seed, communicator, resuming=resuming)
        if not resuming:  # what a continued run was started with stays on record
            text = yaml.safe_dump(_absolute_paths(config).model_dump(mode="json"), sort_keys=False)
            communicator.run_on_rank_zero(lambda: atomic_write_text(config.output / "config.yaml", text))
        train_config = TrainConfig.model_validate(config.model_dump(exclude={"data", "output"}))
        return train(
            training, validation, train_config, output=config.output, restart=restart, quiet=quiet, communicator=communicator
        )


def _is_resuming(config: RunConfig, *, restart: bool) -> bool:
    """Make the folder of the run where it is missing; whether it holds a run to go on with."""
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the run folder {config.output}: {error.strerror}") from error
    resuming = (config.output / "checkpoint.safetensors").exists() and not restart
    saved_config = config.output / "config.yaml"
    if resuming and saved_config.exists() and _split_options(load_config(saved_config)) != _split_options(config):
        raise FileFormatError(
            f"{config.output}: this run was started with another configuration of its data. Use another output "
            "folder, or --restart to begin again here."
        )
    return resuming


def _split_options(config: RunConfig) -> tuple[object, ...]:
    """What decides which structures are held out."""
    data = config.data
    held_out = data.validation is None
    return (held_out, *((data.validation_fraction, data.by_group, config.seed) if held_out else ()))


def _absolute_paths(config: RunConfig) -> RunConfig:
    """The same run with paths that mean the same in every folder."""
    data = {"train": config.data.train.resolve()}
    if config.data.validation is not None:
        data["validation"] = config.data.validation.resolve()
    changes: dict[str, object] = {"data": config.data.model_copy(update=data), "output": config.output.resolve()}
    if config.init_from is not None:
        changes["start_from"] = with_base_folder(config.init_from, Path.cwd())
    return config.model_copy(update=changes)


def _load_data(
    data: DataConfig, output: Path, seed: int, communicator: Communicator, *, resuming: bool
) -> tuple[DatasetLike, DatasetLike]:
    dataset = open_dataset(data.train, memory_mib=data.memory_mib)
    if data.validation is not None:
        return dataset, open_dataset(data.validation, memory_mib=data.memory_mib)
    path = output / "split.json"
    if communicator.run_on_rank_zero(lambda: resuming and path.exists()):
        splits = Split.read(path).apply(dataset)
        return splits["train"], splits["validation"]
    training, validation = dataset.split(
        1 - data.validation_fraction, data.validation_fraction, seed=seed, by_group=data.by_group
    )
    communicator.run_on_rank_zero(lambda: Split.from_dataset(dataset, train=training, validation=validation).write(path))
    return training, validation
