"""Configuration files: the one place where YAML text becomes a `RunConfig`, with replies for every mistake."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from hesse.engines.potentials import with_base_folder
from hesse.errors import ConfigError, FileFormatError, UnknownOptionError, did_you_mean
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
    if isinstance(content.get("start_from"), str):
        content["start_from"] = with_base_folder(content["start_from"], folder)


def _override(content: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f'expected key=value, for example optimiser.learning_rate=1e-3, got "{word}"')
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
