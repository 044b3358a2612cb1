"""YAML of unknown origin: plain data only, each key once, and no more of it than its text can describe."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from hesse.errors import FileFormatError, HesseError, first_line

__all__ = ["parse_yaml", "read_options"]

_BASE: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS: Final = frozenset({"map", "seq", "str", "int", "float", "bool", "null", "timestamp"})
_MAX_DEPTH: Final = 100
"""Deepest nesting; phonopy's files and configurations need less than ten."""
_MAX_EXPANSION: Final = 20
"""Number of values per character of text, with every alias counted as often as it is used."""


_MAX_BYTES: Final = 1 << 20
"""Largest file of options."""


class _TextError(yaml.YAMLError):
    """Something that YAML allows and that is refused here."""


class _PlainLoader(_BASE):
    """PyYAML's safe loader, which makes no objects, without repeated keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            merged = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
            if not merged and len(set(keys)) != len(keys):
                repeated = next(key for key in keys if keys.count(key) > 1)
                raise _TextError(f"line {node.start_mark.line + 1}: the key {repeated[:60]!r} occurs twice")
        return super().construct_mapping(node, deep=deep)


def read_options(path: str | Path, *, what: str = "configuration") -> dict[str, Any]:
    """Read a YAML file of options as plain data.

    Args:
        path: the file.
        what: what it describes, for messages.

    Returns:
        The options by name.

    Raises:
        FileFormatError: the file is missing, too large, or is not a YAML mapping.
    """
    if not isinstance(path, str | Path):
        raise FileFormatError(f"expected the path of a YAML file, got {type(path).__name__}")
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > _MAX_BYTES:
            raise FileFormatError(f"{path}: {path.stat().st_size >> 20} MiB are too much for a {what}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileFormatError(f"{path}: cannot read the {what} ({error.strerror})") from error
    except UnicodeDecodeError:
        raise FileFormatError(
            f"{path}: expected a {what} (YAML text with lines `key: value`), and this is no text. Files of data are "
            "named in it, data: {train: FILE}"
        ) from None
    except ValueError as error:  # a path with a null character
        raise FileFormatError(f"{path}: cannot read the {what} ({' '.join(str(error).split())})") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: expected a mapping of options (key: value), got {type(content).__name__}")
    return content


def parse_yaml(text: str, source: str, *, error_type: type[HesseError] = FileFormatError) -> Any:
    """Read YAML text as plain data. Nothing in it can run code or name a class.

    Args:
        text: the text.
        source: what to call it in an error message, for example the path of the file.
        error_type: class of the errors.

    Returns:
        Mappings, lists, texts, numbers, dates, booleans and None.

    Raises:
        HesseError: of the class `error_type`: not YAML, with tags that are not plain data, with a repeated key, nested
            too deeply, or with aliases that multiply its content.
    """
    try:
        _check_events(text)
        content = yaml.load(text, Loader=_PlainLoader)
        _check_content(content, _MAX_EXPANSION * max(len(text), 1000))
    except yaml.constructor.ConstructorError as error:
        raise error_type(
            f"{source}: holds YAML tags or keys that are not plain data ({error.problem}); loading such a file can run "
            "programs. Nothing was run. Remove the tags if you trust the rest."
        ) from None
    except _TextError as error:
        raise error_type(f"{source}: {error}") from None
    except Exception as error:  # PyYAML raises errors of any type for numbers and dates that are none
        words = " ".join(str(error).split()) or first_line(error)
        raise error_type(f"{source}: not valid YAML, truncated or damaged: {words[:300]}") from None
    return content


def _check_events(text: str) -> None:
    """Refuse tags of anything but plain data, and deep nesting before PyYAML follows it by recursion in native code."""
    depth = 0
    for event in yaml.parse(text, Loader=_BASE):
        tag = getattr(event, "tag", None) or "!"
        if tag != "!" and tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
            raise yaml.constructor.ConstructorError(problem=f"{_line(event)}{tag[:80]}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise _TextError(f"{_line(event)}nested more than {_MAX_DEPTH} times")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}: " if event.start_mark is not None else ""


def _check_content(content: Any, most: int) -> None:
    """Refuse values that are not plain data, and aliases that refer to their own container or multiply the content."""
    sizes: dict[int, int] = {}  # of containers, with everything inside them
    open_containers: set[int] = set()
    pending: list[tuple[Any, bool]] = [(content, False)]
    while pending:
        value, finished = pending.pop()
        if not isinstance(value, dict | list):
            if not isinstance(value, str | int | float | datetime.date | None):
                raise yaml.constructor.ConstructorError(problem=f"a value of type {type(value).__name__}")
            continue
        key, items = id(value), [*value, *value.values()] if isinstance(value, dict) else value
        if finished:
            open_containers.discard(key)
            sizes[key] = 1 + sum(sizes.get(id(item), 1) for item in items)
            if sizes[key] > most:
                raise _TextError("its aliases multiply the content without bounds")
        elif key in open_containers:
            raise _TextError("an alias refers to its own container")
        elif key not in sizes:
            open_containers.add(key)
            pending.append((value, True))
            pending.extend((item, False) for item in items)
