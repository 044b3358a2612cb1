"""Configuration files: the one place where YAML text becomes a `RunConfig`, with replies for every mistake."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hesse.errors import ConfigError, FileFormatError, UnknownOptionError, nearest_name
from hesse.training.config import RunConfig

__all__ = ["load_config", "validate_config"]

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
    _anchor_paths(content, path.parent)
    for word in overrides:
        _override(content, word)
    return validate_config(RunConfig, content, source=str(path))


def validate_config(kind: type[T], content: Any, *, source: str) -> T:
    """`content` as a `kind`. Raises UnknownOptionError or ConfigError that name source, section and remedy."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        *section, name = (str(part) for part in first["loc"]) if first["loc"] else ("",)
        where = f"{source}, [{'.'.join(section)}]" if section else source
        if first["type"] == "extra_forbidden":
            valid = _fields_at(kind, section)
            raise UnknownOptionError(f'{where}: no option "{name}". {nearest_name(name, valid)}') from None
        if first["type"] == "missing":
            raise ConfigError(f'{where}: the option "{name}" is required and was not given') from None
        raise ConfigError(f'{where}: option "{name}" = {first.get("input")!r}: {first["msg"]}') from None


def _fields_at(kind: type[BaseModel], section: Sequence[str]) -> list[str]:
    """Names of the options in a section of a configuration."""
    current: type[BaseModel] = kind
    for part in section:
        field = current.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return list(current.model_fields)
        current = field.annotation
    return list(current.model_fields)


def _anchor_paths(content: dict[str, Any], folder: Path) -> None:
    data = content.get("data")
    for mapping, key in ((data, "train"), (data, "validation"), (content, "output")):
        if isinstance(mapping, dict) and isinstance(mapping.get(key), str):
            mapping[key] = str(folder / mapping[key])


def _override(content: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f'expected key=value, for example optimiser.learning_rate=1e-3, got "{word}"')
    *sections, name = key.split(".")
    here: dict[str, Any] = content
    for section in sections:
        inner = here.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f'override "{word}": {section} is a value, not a section')
        here = inner
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'override "{word}": the value is not valid YAML') from error
    # YAML 1.1 reads 1e-3 (no dot) as text; everybody means a number.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    here[name] = value
