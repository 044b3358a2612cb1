"""Runs from configuration files: YAML text to a `RunConfig`, and a run as such a file describes it.

`load_config` reads a file and `key=value` words. `run_from_config` reads and splits the data, writes a record of the
settings and the split into the output folder, and trains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from hesse.datasets import open_datasets
from hesse.engines.names import with_base_folder
from hesse.errors import ConfigError
from hesse.runtime.filesystem import atomic_write_text
from hesse.runtime.settings import validate_config
from hesse.runtime.yaml_text import parse_yaml, read_options
from hesse.training.config import RunConfig, TrainConfig
from hesse.training.distributed import Communicator, init_distributed
from hesse.training.run_data import load_run_data
from hesse.training.run_folder import open_run_folder
from hesse.training.run_identity import changed_run_error
from hesse.training.train_function import train_in_open_folder
from hesse.training.train_result import TrainResult

__all__ = ["load_config", "resolve_paths", "run_from_config"]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a run from a YAML file.

    Args:
        path: the file. Relative paths in it are relative to its folder.
        overrides: `key=value` words that replace options of the file, for example `optimizer.learning_rate=1e-3`. Keys
            are dotted, values are YAML; relative paths are relative to the working folder.

    Returns:
        The configuration, with defaults for all options that were not given.

    Raises:
        FileFormatError: the file is missing or is not a YAML mapping.
        UnknownOptionError: an option that does not exist; the message gives the nearest valid name.
        ConfigError: a value of the wrong type or out of range, or an invalid override.
    """
    content = read_options(path)
    resolve_paths(content, Path(path).parent)
    for word in overrides:
        _override(content, word)
    return validate_config(RunConfig, content, source=str(path))


def resolve_paths(content: dict[str, Any], folder: Path) -> None:
    """Make relative paths among the options of a run relative to a folder, in place.

    Args:
        content: the options; values of wrong types are left alone.
        folder: the folder of their file.
    """
    data = content.get("data")
    for mapping, key in (
        (data, "train"),
        (data, "validation"),
        (data, "replay"),
        (content, "output"),
        (content, "baseline"),
    ):
        if isinstance(mapping, dict):
            value = mapping.get(key)
            if isinstance(value, str):
                mapping[key] = str(folder / value)
            elif isinstance(value, list):
                mapping[key] = [str(folder / file) if isinstance(file, str) else file for file in value]
    if isinstance(content.get("init_from"), str):
        content["init_from"] = with_base_folder(content["init_from"], folder)


def _override(content: dict[str, Any], word: str) -> None:
    """Set the option in `content` that the word `key=value` gives."""
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f'expected key=value, for example optimizer.learning_rate=1e-3, got "{word}"')
    *sections, name = key.split(".")
    mapping: dict[str, Any] = content
    for section in sections:
        inner = mapping.setdefault(section, {})
        if inner == "balance":  # the short form of the section `weights`
            inner = mapping[section] = {"balance": True}
        if not isinstance(inner, dict):
            raise ConfigError(f'override "{word}": {section} is a value, not a section')
        mapping = inner
    value = parse_yaml(text, f'override "{word}"', error_type=ConfigError)
    # YAML 1.1 reads 1e-3 (without a dot) as text.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if key in ("data.train", "data.validation", "data.replay") and isinstance(value, str) and "," in value:
        value = value if Path(value).exists() else [file.strip() for file in value.split(",") if file.strip()]
    mapping[name] = value


def run_from_config(
    config: RunConfig, *, restart: bool = False, quiet: bool = False, communicator: Communicator | None = None
) -> TrainResult:
    """Train one model as a `RunConfig` describes it, which is what `hesse train` does.

    The output folder also receives `config.yaml`, `data.json` with the files of data and their hashes and, if
    validation structures are held out of the training files, `split.json` with their ids, which a continued run uses
    again.

    Args:
        config: settings, data and output folder.
        restart: begin again although the output folder contains a run.
        quiet: no progress on standard error.
        communicator: the processes that train together; None: see `hesse.train`. All of them read the data, the first
            one writes.

    Returns:
        The best model and its validation errors.

    Raises:
        RequestError: data that cannot be read, a split that does not fit, and all errors of `hesse.train`.
    """
    with ExitStack() as stack:
        if communicator is None:
            communicator = stack.enter_context(init_distributed(config.device))
        communicator.device(config.device)
        stack.enter_context(open_run_folder(config.output, communicator))
        resuming = communicator.run_on_rank_zero(lambda: _is_resuming(config, restart=restart))
        data = load_run_data(config.data, config.output, config.seed, communicator, resuming=resuming)
        replay = (
            open_datasets(config.data.replay_files, memory_mib=config.data.memory_mib) if config.data.replay else None
        )

        def write_config() -> None:
            text = yaml.safe_dump(_absolute_paths(config).model_dump(mode="json"), sort_keys=False)
            atomic_write_text(config.output / "config.yaml", text)

        train_config = TrainConfig.model_validate(config.model_dump(exclude={"data", "output"}))

        def record() -> None:
            data.record()
            if not resuming:  # a continued run keeps the record of its start, unless its number of steps changes
                write_config()

        return train_in_open_folder(
            data.training,
            data.validation,
            train_config,
            config.output,
            communicator,
            replay=replay,
            restart=restart,
            quiet=quiet,
            on_start=record,
            on_other_steps=write_config,
        )


def _is_resuming(config: RunConfig, *, restart: bool) -> bool:
    """True if the output folder contains a run to continue."""
    resuming = (config.output / "checkpoint.safetensors").exists() and not restart
    saved_config = config.output / "config.yaml"
    if resuming and saved_config.exists():
        before, now = _split_options(load_config(saved_config)), _split_options(config)
        changes = [f"{name} ({before[name]} before, {now[name]} now)" for name in now if before[name] != now[name]]
        if changes:
            raise changed_run_error(config.output, changes)
    return resuming


def _split_options(config: RunConfig) -> dict[str, object]:
    """By name, the options that determine which structures are held out; None if they have no effect."""
    data = config.data
    held_out = data.validation is None
    return {
        "data.validation": "a part of the training data" if held_out else "files",
        "data.validation_fraction": data.validation_fraction if held_out else None,
        "data.by_group": data.by_group if held_out else None,
        "seed": config.seed if held_out else None,
    }


def _absolute_paths(config: RunConfig) -> RunConfig:
    """The same configuration with absolute paths."""
    files = {name: getattr(config.data, name) for name in ("train", "validation", "replay")}
    data = {
        name: tuple(file.resolve() for file in value) if isinstance(value, tuple) else value.resolve()
        for name, value in files.items()
        if value is not None
    }
    changes: dict[str, object] = {"data": config.data.model_copy(update=data), "output": config.output.resolve()}
    if config.baseline is not None:
        changes["baseline"] = config.baseline.resolve()
    if config.init_from is not None:
        changes["init_from"] = with_base_folder(config.init_from, Path.cwd())
    return config.model_copy(update=changes)
