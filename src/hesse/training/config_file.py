"""Configuration files: the one place where YAML text becomes a `RunConfig`, with replies for every mistake."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from hesse.datasets import DatasetLike, Split, open_dataset
from hesse.engines.names import with_base_folder
from hesse.errors import ConfigError, FileFormatError, UnknownOptionError, WriteError, did_you_mean
from hesse.runtime.filesystem import atomic_write_text
from hesse.training.config import DataConfig, RunConfig, TrainConfig
from hesse.training.distributed import Communicator, init_distributed
from hesse.training.trainer import TrainResult, train

__all__ = ["load_config", "run_from_config", "validate_config"]

T = TypeVar("T", bound=BaseModel)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A run configuration from a YAML file and `key=value` words (dotted keys; values are YAML).

    Paths in the file count from the file's folder; paths in overrides from the working folder.

    Raises:
        FileFormatError: the file is missing or no YAML mapping.
        UnknownOptionError: a key that does not exist; the message names the nearest valid one.
        ConfigError: a value of the wrong type or out of range, or a malformed override.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: expected a mapping of options (key: value), got {type(content).__name__}")
    _resolve_paths(content, path.parent)
    for word in overrides:
        _override(content, word)
    return validate_config(RunConfig, content, source=str(path))


def validate_config(config_type: type[T], content: Any, *, source: str) -> T:
    """`content` as a `kind`. Raises UnknownOptionError or ConfigError that name source, section and remedy."""
    try:
        return config_type.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # options that are fine one by one and do not go together
            raise ConfigError(f"{source}: {first['msg'].removeprefix('Value error, ')}") from None
        path = [str(part) for part in first["loc"]]
        valid, path = _fields_at(config_type, path)
        *section, name = path
        where = f"{source}, [{'.'.join(section)}]" if section else source
        if first["type"] == "extra_forbidden":
            raise UnknownOptionError(f'{where}: no option "{name}". {did_you_mean(name, valid)}') from None
        if first["type"] == "missing":
            raise ConfigError(f'{where}: the option "{name}" is required and was not given') from None
        if first["type"] == "literal_error":
            raise UnknownOptionError(_wrong_choice(first, source)) from None
        if first["type"] == "union_tag_invalid" and isinstance(first["input"], dict):
            wrong, choices = first["ctx"]["tag"], _quoted_names(first["ctx"]["expected_tags"])
            raise UnknownOptionError(f'{source}, [{name}]: no kind "{wrong}". {did_you_mean(wrong, choices)}') from None
        message = "expected a mapping of options" if first["type"].startswith("union_tag") else first["msg"]
        raise ConfigError(f'{where}: option "{name}" = {first.get("input")!r}: {message}') from None


def _wrong_choice(error: Any, source: str) -> str:
    """The reply to a value, or to the name of a section, that is none of the few allowed ones."""
    *section, name = (str(part) for part in error["loc"])
    wrong = str(error.get("input"))
    if name == "[key]":  # a section with names of its own; pydantic's location ends with the name and this mark
        wrong, name = section.pop(), "option"
    where = f"{source}, [{'.'.join(section)}]" if section else source
    choices = _quoted_names(error.get("ctx", {}).get("expected", ""))
    return f'{where}: no {name} "{wrong}". ' + (did_you_mean(wrong, choices) if choices else error["msg"])


def _quoted_names(text: object) -> list[str]:
    """Pydantic lists choices as text: 'a', 'b' or 'c'."""
    return re.findall(r"'([^']*)'", str(text))


def _fields_at(config_type: type[BaseModel], path: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the options in the section where `path` ends, and the path as users write it: where one of several
    kinds of configuration was chosen (model: {kind: ...}), pydantic puts the kind into the path."""
    current: Any = config_type
    user_path = []
    for part in path[:-1]:
        sections = {str(c.model_fields["kind"].default): c for c in _sections(current) if "kind" in c.model_fields}
        if part in sections:
            current = sections[part]
            continue
        user_path.append(part)
        # A dictionary has sections with names of their own, all alike.
        is_dict = get_origin(current) is dict
        current = get_args(current)[1] if is_dict else _sections(current)[0].model_fields[part].annotation
    return [name for section in _sections(current)[:1] for name in section.model_fields], [*user_path, path[-1]]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The kinds of section that an annotation allows: one, several in a union, none where it is no section."""
    if get_origin(annotation) is Annotated:
        return _sections(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [section for choice in get_args(annotation) for section in _sections(choice)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    data = content.get("data")
    for mapping, key in ((data, "train"), (data, "validation"), (content, "output")):
        if isinstance(mapping, dict) and isinstance(mapping.get(key), str):
            mapping[key] = str(folder / mapping[key])
    if isinstance(content.get("init_from"), str):
        content["init_from"] = with_base_folder(content["init_from"], folder)


def _override(content: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f'expected key=value, for example optimizer.learning_rate=1e-3, got "{word}"')
    *sections, name = key.split(".")
    mapping: dict[str, Any] = content
    for section in sections:
        inner = mapping.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f'override "{word}": {section} is a value, not a section')
        mapping = inner
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'override "{word}": the value is not valid YAML') from error
    # YAML 1.1 reads 1e-3 (no dot) as text; everybody means a number.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    mapping[name] = value


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
            training,
            validation,
            train_config,
            output=config.output,
            restart=restart,
            quiet=quiet,
            communicator=communicator,
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
        changes["init_from"] = with_base_folder(config.init_from, Path.cwd())
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
    communicator.run_on_rank_zero(
        lambda: Split.from_dataset(dataset, train=training, validation=validation).write(path)
    )
    return training, validation


# MERGED DOCSTRING (fold into the module docstring): """A run from files: read and split the data, record what was done, hand over to the loop."""
