"""Every error Hesse raises on purpose. Each says what was expected, what came, and what to do.

Two branches, told apart by the exit code of the command line: the request was wrong (`RequestError`, 2), or the
request was fine and the work failed (`ExecutionError`, 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CompilationError",
    "ConfigError",
    "EngineError",
    "ExecutionError",
    "FileFormatError",
    "GeometryError",
    "HesseError",
    "InconsistentLabelsError",
    "InterruptedRunError",
    "LabelShapeError",
    "LabelValueError",
    "MissingExtraError",
    "MissingLabelError",
    "NonFiniteLossError",
    "ProcessLostError",
    "RequestError",
    "UnitError",
    "UnknownElementError",
    "UnknownOptionError",
    "WriteError",
    "check_choice",
    "did_you_mean",
    "first_line",
]


class HesseError(Exception):
    """Root of all deliberate errors."""

    exit_code = 1


class RequestError(HesseError):
    """What was asked cannot be done as asked: change the request or the input."""

    exit_code = 2


class ConfigError(RequestError):
    """A configuration value of the wrong type or out of range."""


class UnknownOptionError(ConfigError):
    """A configuration key, tag or kind that does not exist."""


class UnitError(RequestError):
    """Units are missing, unknown, or not the expected kind."""


class FileFormatError(RequestError):
    """A file is unreadable, truncated, of another format, or of a newer version."""


class LabelShapeError(RequestError):
    """A label whose shape does not fit its structure."""


class LabelValueError(RequestError):
    """A label that is not a finite number."""


class MissingLabelError(RequestError):
    """The work needs labels that the data do not hold."""


class InconsistentLabelsError(RequestError):
    """Labels that contradict each other: rotating a molecule must rotate its gradient."""


class GeometryError(RequestError):
    """A geometry no potential can answer for: atoms on top of each other, non-finite positions."""


class UnknownElementError(RequestError):
    """An element that a potential was not made for."""


class MissingExtraError(RequestError):
    """An optional package is needed and not installed."""


class ExecutionError(HesseError):
    """The request was right; doing it failed."""


class EngineError(ExecutionError):
    """An engine did not deliver (no convergence, non-finite numbers, an outside program that died)."""


class NonFiniteLossError(ExecutionError):
    """Training met a loss that is not a finite number."""


class CompilationError(ExecutionError):
    """A potential could not be compiled, or what was compiled does not agree with it."""


class WriteError(ExecutionError):
    """A file could not be written. What was there before is unharmed."""


class ProcessLostError(ExecutionError):
    """Another process of the same job ended, or cannot be reached."""


class InterruptedRunError(ExecutionError):
    """The user, or the queue, asked the run to stop. Its state is saved; the same command continues it."""


def first_line(error: BaseException) -> str:
    """The first line of what an error of somebody else's code says, or its kind where it says nothing."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A sentence that helps somebody who mistyped `name`: the nearest valid name, or all of them."""
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f'Did you mean "{close[0]}"?'
    return f"Valid: {', '.join(options)}."


def check_choice(value: str, valid: Iterable[str], what: str) -> str:
    """`value` if it is one of `valid`. Raises UnknownOptionError with the nearest valid name otherwise."""
    options = list(valid)
    if value not in options:
        raise UnknownOptionError(f'no {what} "{value}". {did_you_mean(value, options)}')
    return value
