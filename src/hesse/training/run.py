"""A run from files: read and split the data, record what was done, hand over to the loop."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import yaml

from hesse.datasets import Split, TrainingData, open_dataset
from hesse.engines.potentials import anchored
from hesse.errors import FileFormatError, WriteError
from hesse.files import write_text
from hesse.training.config import DataConfig, RunConfig, TrainConfig
from hesse.training.loop import TrainResult, train
from hesse.training.parse import load_config
from hesse.training.processes import Processes, joined

__all__ = ["run"]


def run(
    config: RunConfig, *, restart: bool = False, quiet: bool = False, processes: Processes | None = None
) -> TrainResult:
    """Do what a `RunConfig` says. The output folder also receives `config.yaml` and, where validation structures were
    held out of the training file, `split.json` with their ids (a continued run uses it again).

    `processes`: see `train`. All of them read the data; the first writes.

    Raises:
        RequestError: unreadable data, a split that does not fit; and all that `train` raises.
    """
    with ExitStack() as stack:
        if processes is None:
            processes = stack.enter_context(joined(config.device))
        processes.device(config.device)
        continued = processes.of_first(lambda: _continued(config, restart=restart))
        training, validation = _data(config.data, config.output, config.seed, processes, continued=continued)
        if not continued:  # what a continued run was started with stays on record
            text = yaml.safe_dump(_anywhere(config).model_dump(mode="json"), sort_keys=False)
            processes.of_first(lambda: write_text(config.output / "config.yaml", text))
        plain = TrainConfig.model_validate(config.model_dump(exclude={"data", "output"}))
        return train(
            training, validation, plain, output=config.output, restart=restart, quiet=quiet, processes=processes
        )


def _continued(config: RunConfig, *, restart: bool) -> bool:
    """Make the folder of the run where it is missing; whether it holds a run to go on with."""
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the run folder {config.output}: {error.strerror}") from error
    continued = (config.output / "checkpoint.safetensors").exists() and not restart
    record = config.output / "config.yaml"
    if continued and record.exists() and _split_options(load_config(record)) != _split_options(config):
        raise FileFormatError(
            f"{config.output}: this run was started with another configuration of its data. Use another output "
            "folder, or --restart to begin again here."
        )
    return continued


def _split_options(config: RunConfig) -> tuple[object, ...]:
    """What decides which structures are held out."""
    data = config.data
    held_out = data.validation is None
    return (held_out, *((data.validation_fraction, data.by_group, config.seed) if held_out else ()))


def _anywhere(config: RunConfig) -> RunConfig:
    """The same run with paths that mean the same in every folder."""
    data = {"train": config.data.train.resolve()}
    if config.data.validation is not None:
        data["validation"] = config.data.validation.resolve()
    changes: dict[str, object] = {"data": config.data.model_copy(update=data), "output": config.output.resolve()}
    if config.start_from is not None:
        changes["start_from"] = anchored(config.start_from, Path.cwd())
    return config.model_copy(update=changes)


def _data(
    data: DataConfig, output: Path, seed: int, processes: Processes, *, continued: bool
) -> tuple[TrainingData, TrainingData]:
    whole = open_dataset(data.train, memory_mib=data.memory_mib)
    if data.validation is not None:
        return whole, open_dataset(data.validation, memory_mib=data.memory_mib)
    path = output / "split.json"
    if processes.of_first(lambda: continued and path.exists()):
        parts = Split.read(path).apply(whole)
        return parts["train"], parts["validation"]
    training, validation = whole.split(
        1 - data.validation_fraction, data.validation_fraction, seed=seed, by_group=data.by_group
    )
    processes.of_first(lambda: Split.of(whole, train=training, validation=validation).write(path))
    return training, validation
