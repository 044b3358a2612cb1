"""Typed settings, and error messages for wrong ones.

`Settings` is the base of every configuration. In Python (`TrainConfig(stepps=5)`) and in files (`validate_config`) a
mistake gets the same error message: the section, the name, the nearest valid name, or the new name of an option that
was renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from hesse.errors import (
    ConfigError,
    RequestError,
    UnknownOptionError,
    check_numbers,
    check_whole_numbers,
    did_you_mean,
)

__all__ = ["Settings", "check_fields", "settings_from", "validate_config"]

T = TypeVar("T", bound=BaseModel)
S = TypeVar("S")


class Settings(BaseModel):
    """Base of configurations: frozen, finite numbers, unknown names are refused.

    Attributes:
        renamed: old names of options and their new names, for the error message about an old one. A key `"NAME.kind:
            OLD"` denotes a kind of the section NAME.
        synonyms: names that other programs use for an option, as dotted paths from this section.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}
    synonyms: ClassVar[Mapping[str, str]] = {}

    def __init__(self, /, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            reply = _reply(type(self), error, type(self).__name__)
        else:
            return
        raise reply

    # Sections inside other sections are validated without this constructor, as for any class of pydantic: the error is
    # written once, by the outermost one.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).model_fields:
            raise ConfigError(
                f"a {type(self).__name__} cannot be changed: create another one, or use "
                f"config.model_copy(update={{{name!r}: ...}})"
            )
        super().__setattr__(name, value)


def validate_config(config_type: type[T], content: Any, *, source: str) -> T:
    """Turn a mapping of options, for example from a file, into a configuration.

    Args:
        config_type: class of the configuration.
        content: the options; sections are mappings too.
        source: what to call the mapping in an error message, for example the path of the file.

    Returns:
        The configuration.

    Raises:
        UnknownOptionError: an option, kind or choice that does not exist. The message gives the section and the nearest
            valid name, or the new name of a renamed option.
        ConfigError: a value of the wrong type or out of range, a missing option, or options that exclude each other.
    """
    try:
        return config_type.model_validate(content)
    except ValidationError as error:
        reply = _reply(config_type, error, source)
    raise reply


def settings_from(settings_type: type[S], settings: object, options: Mapping[str, Any]) -> S:
    """Settings that a caller gave as one object or as single options.

    Args:
        settings_type: a dataclass of settings, or a subclass of `Settings`.
        settings: an object of it, or None.
        options: values of its fields, in place of the object.

    Returns:
        The settings; fields that are not among the options have their defaults.

    Raises:
        RequestError: another object, both forms at once, or a missing option without a default.
        UnknownOptionError: an option that does not exist; the message has the nearest name.
        ConfigError: a value out of range or of the wrong type.
    """
    name = settings_type.__name__
    if settings is not None and not isinstance(settings, settings_type):
        raise RequestError(f"expected {name}(...) or its options, got {type(settings).__name__}")
    if isinstance(settings, settings_type):
        if options:
            raise RequestError(f"expected {name}(...) or its options ({', '.join(options)}), got both")
        return settings
    if issubclass(settings_type, BaseModel):
        return settings_type(**options)
    known = {field.name: field for field in fields(settings_type) if field.init}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise UnknownOptionError(f'{name}: no option "{option}". {did_you_mean(option, list(known))}')
    for field in known.values():
        if field.default is MISSING and field.default_factory is MISSING and field.name not in options:
            raise RequestError(f'{name}: the option "{field.name}" is required and was not given')
    return settings_type(**options)


def check_fields(settings: Any) -> None:
    """Check that the fields of a dataclass that are declared as numbers are numbers, before they are compared.

    Args:
        settings: an object of a dataclass whose module imports `annotations` from `__future__`.

    Raises:
        ConfigError: a field of another type; the message has its name.
    """
    for field in fields(settings):
        value, (kind, *rest) = getattr(settings, field.name), str(field.type).split(" | ")
        if value is None and "None" in rest:
            continue
        if kind == "tuple[float, ...]":
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise ConfigError(f"{field.name}: expected a list of numbers, got {value!r}")
            for item in value:
                check_numbers(**{field.name: item})
            object.__setattr__(settings, field.name, tuple(value))  # arrays have no truth value
        elif kind == "int":
            check_whole_numbers(**{field.name: value})
        elif kind == "float":
            check_numbers(**{field.name: value})
        elif kind == "bool" and (value is None or isinstance(value, str)):
            raise ConfigError(f"{field.name}: expected True or False, got {value!r}")


_NUMBER, _WHOLE_NUMBER, _YES_OR_NO = "expected a number", "expected a whole number", "expected yes or no"
_PLAIN_WORDS = {
    "path_type": "expected the path of a file or folder",
    "dict_type": "expected a mapping of options",
    **dict.fromkeys(("float_parsing", "float_type"), _NUMBER),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), _WHOLE_NUMBER),
    **dict.fromkeys(("bool_parsing", "bool_type"), _YES_OR_NO),
    "string_type": "expected a text",
    "tuple_type": "expected a list",
    "too_short": "expected a list of {min_length} or more",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt:g}",
    "greater_than_equal": "expected {ge:g} or more",
    "less_than": "expected less than {lt:g}",
    "less_than_equal": "expected {le:g} or less",
}
"""Replies for errors that pydantic explains with classes of Python; the limits are in the context of the error."""


def _reply(config_type: type[BaseModel], error: ValidationError, source: str) -> ConfigError:
    """The error to raise in place of pydantic's."""
    if renames := list(_renames(config_type, error)):
        if len(renames) == 1:
            old, new = renames[0]
            return UnknownOptionError(f'{source}: the option "{old}" was renamed to "{new}"')
        listed = ", ".join(f'"{old}" is now "{new}"' for old, new in renames)
        return UnknownOptionError(f"{source}: options were renamed: {listed}")
    first = error.errors()[0]
    while first["loc"] and isinstance(first["loc"][-1], int):  # an item of a list: the option is the list
        first["loc"] = first["loc"][:-1]
    if not first["loc"]:  # options that are valid one by one and exclude each other
        return ConfigError(f"{source}: {first['msg'].removeprefix('Value error, ')}")
    sections, path = _sections_at(config_type, first["loc"])
    *section, name = path
    where = f"{source}, [{'.'.join(section)}]" if section else source
    if first["type"] == "extra_forbidden":
        return UnknownOptionError(f'{where}: no option "{name}". {_nearest(sections, section, name)}')
    if first["type"] == "missing":
        return ConfigError(f'{where}: the option "{name}" is required and was not given')
    if first["type"] == "literal_error":
        return UnknownOptionError(_wrong_choice(first, path, source))
    if first["type"] == "union_tag_invalid" and isinstance(first["input"], dict):
        wrong, choices = first["ctx"]["tag"], _quoted_names(first["ctx"]["expected_tags"])
        return UnknownOptionError(f'{source}, [{name}]: no kind "{wrong}". {did_you_mean(wrong, choices)}')
    sections_expected = first["type"].startswith(("union_tag", "model_type"))
    kind = "dict_type" if sections_expected else first["type"]
    message = _PLAIN_WORDS[kind].format(**first.get("ctx", {})) if kind in _PLAIN_WORDS else first["msg"]
    message, value = message.removeprefix("Value error, "), first.get("input")
    if isinstance(value, Mapping) and len(repr(value)) > _SHOWN:  # a whole section, which the message is about
        return ConfigError(f'{where}: section "{name}": {message}')
    return ConfigError(f'{where}: option "{name}" = {_shortened(repr(value))}: {message}')


_SHOWN = 100
"""Characters of a value that a message shows."""


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _renames(config_type: type[BaseModel], error: ValidationError) -> Iterator[tuple[str, str]]:
    """Old and new dotted names of all options in `error` that were renamed."""
    for item in error.errors():
        if not item["loc"]:
            continue
        sections, path = _sections_at(config_type, item["loc"])
        table = {old: new for section in sections for old, new in getattr(section, "renamed", {}).items()}
        prefix, name = "".join(f"{part}." for part in path[:-1]), path[-1]
        if item["type"] == "union_tag_invalid" and (old := f"{name}.kind: {item['ctx']['tag']}") in table:
            yield f"{prefix}{old}", f"{prefix}{table[old]}"
        if item["type"] != "extra_forbidden" or name not in table:
            continue
        new = table[name]
        yield f"{prefix}{name}", f"{prefix}{new}"
        if not isinstance(item["input"], Mapping):
            continue
        for section in sections:  # a whole section was renamed: its options may have new names too
            field = section.model_fields.get(new)
            for inner in _sections(field.annotation) if field is not None else ():
                table_inside = getattr(inner, "renamed", {})
                for key in item["input"]:
                    if key in table_inside:
                        yield f"{prefix}{name}.{key}", f"{prefix}{new}.{table_inside[key]}"


def _nearest(sections: Sequence[type[BaseModel]], path: Sequence[str], name: str) -> str:
    """A sentence that names the option that was probably meant."""
    prefix = "".join(f"{part}." for part in path)
    for section in sections:
        if name in (known := getattr(section, "synonyms", {})):
            return f'Use "{prefix}{known[name]}".'
        for inner_name, field in section.model_fields.items():
            if any(name in inner.model_fields for inner in _sections(field.annotation)):
                return f'Did you mean "{prefix}{inner_name}.{name}"?'
    return did_you_mean(name, [field for section in sections[:1] for field in section.model_fields])


def _wrong_choice(error: Any, path: Sequence[str], source: str) -> str:
    """The error message for a value, or the name of a section, that is not one of the allowed ones."""
    *section, name = path
    wrong = str(error.get("input"))
    if name == "[key]":  # the key of a dictionary; pydantic's location ends with the key and this mark
        wrong, name = section.pop(), "option"
    where = f"{source}, [{'.'.join(section)}]" if section else source
    choices = _quoted_names(error.get("ctx", {}).get("expected", ""))
    return f'{where}: no {name} "{wrong}". ' + (did_you_mean(wrong, choices) if choices else error["msg"])


def _quoted_names(text: object) -> list[str]:
    """The names in a list such as "'a', 'b' or 'c'", which is how pydantic writes choices."""
    return re.findall(r"'([^']*)'", str(text))


def _sections_at(
    config_type: type[BaseModel], location: Sequence[str | int]
) -> tuple[list[type[BaseModel]], list[str]]:
    """The classes of the section that contains the option at `location`, and its path as users write it.

    Where one of several kinds of configuration was chosen (model: {kind: ...}), pydantic inserts the kind into the
    location; users do not write it.
    """
    current: Any = config_type
    user_path = []
    *parts, last = (str(part) for part in location)
    for part in parts:
        kinds = {str(c.model_fields["kind"].default): c for c in _sections(current) if "kind" in c.model_fields}
        if part in kinds:
            current = kinds[part]
            continue
        user_path.append(part)
        if part.isdecimal():  # an item of a list
            items = [c for c in get_args(current) or () if get_origin(c) in (list, tuple)] or [current]
            current = (get_args(items[0]) or (None,))[0]
            continue
        if get_origin(current) is dict:  # every key is a section of the same class
            current = get_args(current)[1]
            continue
        fields = next((c.model_fields for c in _sections(current) if part in c.model_fields), None)
        current = fields[part].annotation if fields else None
    sections = _sections(current)
    if user_path and any("kind" in c.model_fields and c.model_fields["kind"].default == last for c in sections):
        return sections, user_path  # the error is of the whole section
    return sections, [*user_path, last]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The classes of section that an annotation allows: one, several for a union, none for a plain value."""
    if get_origin(annotation) is Annotated:
        return _sections(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [section for choice in get_args(annotation) for section in _sections(choice)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
