"""Results of checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["CheckResult", "Outcome", "Status", "compare_to_limit", "info", "skipped"]

Status = Literal["pass", "fail", "skip", "info"]
"""`info`: a measurement worth knowing, not a fault."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one check, before it is put into words.

    Attributes:
        status: pass, fail, skip or info.
        value: the measured number; None if there is none, or if it is not finite.
        limit: the limit it was compared with.
        detail: description of the measurement.
        bound: `<=` if the value must not exceed the limit, `>=` if it must reach it.
    """

    status: Status
    value: float | None = None
    limit: float | None = None
    detail: str = ""
    bound: Literal["<=", ">="] = "<="


def compare_to_limit(value: float, limit: float, detail: str) -> Outcome:
    """Compare a measured value with a limit.

    Args:
        value: the measured number.
        limit: the largest value that passes.
        detail: description of the measurement.

    Returns:
        A pass if `value <= limit`, otherwise a failure; NaN and infinity fail.
    """
    finite = math.isfinite(value)
    status: Status = "pass" if finite and value <= limit else "fail"
    return Outcome(status, value if finite else None, limit, detail)


def skipped(reason: str) -> Outcome:
    """Outcome of a check that does not apply.

    Args:
        reason: why.

    Returns:
        An outcome with status skip.
    """
    return Outcome("skip", detail=reason)


def info(detail: str, value: float | None = None, limit: float | None = None) -> Outcome:
    """Outcome worth knowing that is not a fault.

    Args:
        detail: description.
        value: the measured number, if any.
        limit: the limit it was compared with, if any.

    Returns:
        An outcome with status info.
    """
    return Outcome("info", value, limit, detail)


@dataclass(frozen=True)
class CheckResult:
    """Result of one check; the fields are the stable contract of `hesse check --json`.

    Attributes:
        name: name of the check.
        status: pass, fail, skip or info.
        value: the measured number, without unit (mostly a relative error); None if there is none.
        limit: the limit it was compared with.
        bound: `<=` if the value must not exceed the limit, `>=` if it must reach it.
        message: description; after a failure also what it means for training on curvature, and what to do.
    """

    name: str
    status: Status
    value: float | None
    limit: float | None
    bound: Literal["<=", ">="]
    message: str
