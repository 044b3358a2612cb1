"""Checks of options before any work, whose replies name the option as the user typed it."""

from __future__ import annotations

import math
from pathlib import Path

__all__ = ["check_positive", "check_results"]


def check_positive(unit: str, **options: float | None) -> None:
    """Check that numbers are above zero.

    Args:
        unit: what the numbers are: "K", "ps".
        **options: values by the name of the option with underscores; None is an option that was not given.

    Raises:
        ConfigError: one is not; the message names the option.
    """
    from hesse.errors import ConfigError

    for name, value in options.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--{name.replace('_', '-')}: expected a number of {unit} above 0, got {value:g}")


def check_results(*paths: Path | None, picture: Path | None = None, inputs: tuple[Path, ...] = ()) -> None:
    """Check that all results of a command can be written, each to a file of its own.

    Args:
        *paths: the results; None is one that was not asked for.
        picture: a result that is a picture.
        inputs: files that must not be overwritten.

    Raises:
        FileFormatError: a picture with another ending than .png or .svg.
        RequestError: a folder that is missing, an input, or the same file twice.
    """
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_output_path, picture_suffix

    if picture is not None:
        picture_suffix(picture)
    given = [path for path in (*paths, picture) if path is not None]
    for path in given:
        check_output_path(path, *inputs)
    names = [path.resolve() for path in given]
    for k, name in enumerate(names):
        if name in names[:k]:
            raise RequestError(f"{given[k]}: two results would be written to this file. Choose different names")
