"""All errors that Hesse raises deliberately. A message states what was expected, what was received, and what to do.

Two branches with different exit codes of the command line: the request was wrong (`RequestError`, 2), or the request
was valid and its execution failed (`ExecutionError`, 1).
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = [
    "ChargeStateWarning",
    "CompilationError",
    "ConfigError",
    "EngineError",
    "ExecutionError",
    "ExtrapolationWarning",
    "FileFormatError",
    "GeometryError",
    "HarmonicWarning",
    "HesseError",
    "InconsistentLabelsError",
    "InterruptedRunError",
    "LabelShapeError",
    "LabelValueError",
    "MissingExtraError",
    "MissingLabelError",
    "NonFiniteLossError",
    "NotReadWarning",
    "ProcessLostError",
    "RequestError",
    "UnitError",
    "UnknownElementError",
    "UnknownOptionError",
    "WriteError",
    "check_choice",
    "check_numbers",
    "check_positive",
    "check_whole_numbers",
    "did_you_mean",
    "first_line",
]


class NotReadWarning(UserWarning):
    """A file holds something that was not read: columns and keys of unknown names, or values that cannot be trusted.

    `read_dataset(..., strict=True)` and `--strict` make it an error.
    """


class ExtrapolationWarning(UserWarning):
    """A structure is outside what a model was trained on: its energies and forces there may be wrong."""


class ChargeStateWarning(UserWarning):
    """A structure has a charge or multiplicity that the training data of a model did not have: the model, which knows
    elements and positions only, gives the energies of the states that it was trained on."""


class HarmonicWarning(UserWarning):
    """Frequencies that may not mean what they seem to: large forces, modes near zero, an uncertain Hessian, an unlikely
    unit."""


class HesseError(Exception):
    """Base class of all deliberate errors.

    Attributes:
        exit_code: exit code of the command line.
    """

    exit_code = 1


class RequestError(HesseError):
    """The request cannot be fulfilled: change the request or the input."""

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
    """Required labels are missing in the data."""


class InconsistentLabelsError(RequestError):
    """Labels that contradict each other, for example a Hessian that violates its rotational sum rule."""


class GeometryError(RequestError):
    """An unphysical geometry: overlapping atoms, non-finite positions."""


class UnknownElementError(RequestError):
    """An element that the potential does not support."""


class MissingExtraError(RequestError):
    """A required optional package is not installed."""


class ExecutionError(HesseError):
    """The request was valid; its execution failed."""


class EngineError(ExecutionError):
    """An engine failed (no convergence, non-finite numbers, an external program that crashed)."""


class NonFiniteLossError(ExecutionError):
    """The loss became NaN or infinite during training."""


class CompilationError(ExecutionError):
    """A potential could not be compiled, or the compiled results differ from the eager ones."""


class WriteError(ExecutionError):
    """A file could not be written. An existing file is unchanged."""


class ProcessLostError(ExecutionError):
    """Another process of the same job ended or cannot be reached."""


class InterruptedRunError(ExecutionError):
    """The run was stopped by the user or the queueing system. Its state is saved; the same command resumes it."""


def first_line(error: BaseException) -> str:
    """First line of the message of a third-party error.

    Args:
        error: any exception.

    Returns:
        The first line of its message, or the name of its class if the message is empty.
    """
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


def check_numbers(**values: object) -> None:
    """Check that values are real numbers, before they are compared.

    Args:
        **values: values as given by the user, by the names of their options.

    Raises:
        ConfigError: a value is text, None, a list or another object; the message has its name.
    """
    for name, value in values.items():
        if not _converts(float, value):
            raise ConfigError(f"{name}: expected a number, got {value!r}")


def check_positive(options: Mapping[str, object], *names: str) -> None:
    """Check that options are positive numbers, before a computation of many structures that would fail one by one.

    Args:
        options: values as given by the user, by the names of their options.
        *names: those that are numbers above zero; they may be missing.

    Raises:
        ConfigError: one is not; the message has its name.
    """
    for name in names:
        if name in options:
            value: Any = options[name]
            check_numbers(**{name: value})
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}: expected a number above 0, got {value:g}")


def check_whole_numbers(**values: object) -> None:
    """Check that values are whole numbers, before they are compared or counted.

    Args:
        **values: values as given by the user, by the names of their options.

    Raises:
        ConfigError: a value is text, None, a number with a fractional part or another object; the message has its name.
    """
    for name, value in values.items():
        if not _converts(operator.index, value):
            raise ConfigError(f"{name}: expected a whole number, got {value!r}")


def _converts(conversion: Callable[[Any], object], value: object) -> bool:
    try:
        conversion(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # arrays and tensors raise all of them
        return False
    return not isinstance(value, str | bytes | bytearray)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Suggestion for a mistyped name.

    Args:
        name: the name as typed.
        valid: all valid names.

    Returns:
        A sentence with the nearest valid name, or with all valid names if none is similar.
    """
    options = sorted(valid)
    close = difflib.get_close_matches(str(name), options, n=1, cutoff=0.6)
    if close:
        return f'Did you mean "{close[0]}"?'
    return f"Valid: {', '.join(options)}."


def check_choice(value: str, valid: Iterable[str], what: str) -> str:
    """Check that a value is one of the valid choices.

    Args:
        value: the value as given by the user.
        valid: all valid values.
        what: the kind of value, for the message ("probe").

    Returns:
        `value`, unchanged.

    Raises:
        UnknownOptionError: `value` is not valid; the message contains the nearest valid name.
    """
    options = list(valid)
    if value not in options:
        raise UnknownOptionError(f'no {what} "{value}". {did_you_mean(value, options)}')
    return value
