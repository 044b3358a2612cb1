"""What a check answers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CheckResult", "Outcome", "Status", "compare_to_limit", "info", "skipped"]

Status = Literal["pass", "fail", "skip", "info"]
"""`info`: measured or tried, and worth knowing, but nothing is wrong."""


@dataclass(frozen=True)
class Outcome:
    """What one look at a potential found.

    Attributes:
        status: pass, fail, skip or info.
        value: what was measured; None where the answer is no number (or not a finite one).
        limit: what it was judged by.
        detail: where and what, in words.
        bound: whether the value must stay below the limit, or reach it.
    """

    status: Status
    value: float | None = None
    limit: float | None = None
    detail: str = ""
    bound: Literal["<=", ">="] = "<="


def compare_to_limit(value: float, limit: float, detail: str) -> Outcome:
    """Pass where `value` is at most `limit`; what is not a number does not pass."""
    finite = math.isfinite(value)
    status: Status = "pass" if finite and value <= limit else "fail"
    return Outcome(status, value if finite else None, limit, detail)


def skipped(reason: str) -> Outcome:
    """The question does not arise."""
    return Outcome("skip", detail=reason)


def info(detail: str, value: float | None = None, limit: float | None = None) -> Outcome:
    """Worth knowing."""
    return Outcome("info", value, limit, detail)


@dataclass(frozen=True)
class CheckResult:
    """The answer of one check; the fields are the stable contract of `hesse check --json`.

    Attributes:
        name: of the check.
        status: pass, fail, skip or info.
        value: what was measured, without unit (mostly errors relative to the size of what they are errors of).
        limit: what it was judged by.
        bound: `<=` or `>=`: how the value must stand to the limit.
        message: what was found; after a failure also what it means for training on curvature, and what to do.
    """

    name: str
    status: Status
    value: float | None
    limit: float | None
    bound: Literal["<=", ">="]
    message: str

    def to_json(self) -> dict[str, Any]:
        """As a dictionary of plain values."""
        return asdict(self)
