"""Lists of temperatures and sizes: every value has samples of its own, named after it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

__all__ = ["Sizes", "Temperatures", "TemperaturesFromZero"]


def _as_tuple(values: Any) -> Any:
    """Arrays and lists as a tuple; anything else is left to the check of the type."""
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else values


def _check_names(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or len({f"{value:g}" for value in values}) < len(values):
        raise ValueError("expected at least one number, and numbers that differ: samples are named after them")
    return values


_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]

Temperatures = Annotated[tuple[_Positive, ...], BeforeValidator(_as_tuple), AfterValidator(_check_names)]
"""K; at least one, all of them different in six digits."""

TemperaturesFromZero = Annotated[tuple[_NotNegative, ...], BeforeValidator(_as_tuple), AfterValidator(_check_names)]
"""K, as `Temperatures`, where 0 K has a meaning: zero-point motion."""

Sizes = Annotated[tuple[_NotNegative, ...], BeforeValidator(_as_tuple), AfterValidator(_check_names)]
"""Å; at least one, all of them different in six digits."""
