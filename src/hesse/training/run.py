"""A run from files: read and split the data, record what was done, hand over to the loop."""

from __future__ import annotations

from pathlib import Path

import yaml

from hesse.datasets import Dataset, Split, read_dataset
from hesse.errors import WriteError
from hesse.files import write_text
from hesse.training.config import DataConfig, RunConfig, TrainConfig
from hesse.training.loop import TrainResult, train

__all__ = ["run"]


def run(config: RunConfig, *, restart: bool = False, quiet: bool = False) -> TrainResult:
    """Do what a `RunConfig` says. The output folder also receives `config.yaml` and, where validation structures were
    held out of the training file, `split.json` with their ids (an existing one is used again).

    Raises:
        RequestError: unreadable data, a split that does not fit; and all that `train` raises.
    """
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the run folder {config.output}: {error.strerror}") from error
    training, validation = _data(config.data, config.output, config.seed, restart=restart)
    write_text(config.output / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    plain = TrainConfig.model_validate(config.model_dump(exclude={"data", "output"}))
    return train(training, validation, plain, output=config.output, restart=restart, quiet=quiet)


def _data(data: DataConfig, output: Path, seed: int, *, restart: bool) -> tuple[Dataset, Dataset]:
    whole = read_dataset(data.train)
    if data.validation is not None:
        return whole, read_dataset(data.validation)
    path = output / "split.json"
    if path.exists() and not restart:
        parts = Split.read(path).apply(whole)
        return parts["train"], parts["validation"]
    training, validation = whole.split(
        1 - data.validation_fraction, data.validation_fraction, seed=seed, by_group=data.by_group
    )
    Split.of(whole, train=training, validation=validation).write(path)
    return training, validation
