"""Text of numbers and property names in tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hesse.units import KCAL_PER_MOL

__all__ = [
    "ev_to_kcal",
    "format_fraction",
    "format_noise_floor",
    "format_number",
    "format_percent",
    "format_signed",
    "kcal_unit",
    "property_title",
]

_TITLES: Final[Mapping[str, str]] = {"hvp": "Hessian-vector products", "hessian": "Hessian"}

NEGLIGIBLE_NOISE: Final[float] = 1e-6
"""A noise floor below this, in any unit, is rounding error."""


def property_title(name: str) -> str:
    """Name of a property in tables and figures.

    Args:
        name: one of `hesse.evaluation.property_names`.

    Returns:
        The title, for example "Hessian-vector products".
    """
    return _TITLES.get(name, name.replace("_", " "))


def format_number(value: float | None, digits: int = 3) -> str:
    """A number with three significant digits, with an exponent only below 1e-4 and from 1e6 on.

    Args:
        value: the number, or None.
        digits: significant digits.

    Returns:
        The text; a dash for None.
    """
    if value is None:
        return "–"
    if value == 0.0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e6:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:#.{digits}g}"
    return f"{float(text):.0f}" if "e" in text else text.rstrip(".")


def format_noise_floor(value: float | None) -> str:
    """A noise floor. Values at rounding level are written as "< 1e-6": labels that obey all sum rules exactly, for
    example because a program symmetrized them, may still have errors.

    Args:
        value: the noise floor, or None.

    Returns:
        The text; a dash for None.
    """
    return (
        f"< {format_number(NEGLIGIBLE_NOISE)}"
        if value is not None and value < NEGLIGIBLE_NOISE
        else format_number(value)
    )


def format_signed(value: float, digits: int = 0) -> str:
    """A number with its sign, written with a true minus sign (−).

    Args:
        value: the number.
        digits: digits after the point.

    Returns:
        The text; "0" without a sign for zero.
    """
    text = f"{value:+.{digits}f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def format_percent(value: float | None, digits: int = 0) -> str:
    """A percentage with its sign.

    Args:
        value: the percentage, or None.
        digits: digits after the point. Values below one percent get as many as their first digit needs, at most
            three, so that a small change is not written as none.

    Returns:
        The text; a dash for None.
    """
    if value is None:
        return "–"
    needed = next((n for n in range(1, 4) if abs(value) >= 10.0**-n), 0) if abs(value) < 1.0 else 0
    return f"{format_signed(value, max(digits, needed))} %"


def format_fraction(value: float | None) -> str:
    """A fraction as a percentage, without sign and unit.

    Args:
        value: the fraction (0 to 1), or None.

    Returns:
        Three significant digits; a dash for None.
    """
    return format_number(None if value is None else 100.0 * value)


def ev_to_kcal(value: float | None) -> float | None:
    """Convert an energy, or an energy over a length to some power, from eV to kcal/mol.

    Args:
        value: in eV (per Å, per Å²), or None.

    Returns:
        The value in kcal/mol (per Å, per Å²); None for None.
    """
    return None if value is None else value / KCAL_PER_MOL


def kcal_unit(unit: str) -> str:
    """The unit with kcal/mol instead of eV.

    Args:
        unit: for example "eV/Å²".

    Returns:
        For example "kcal/mol/Å²".
    """
    return unit.replace("eV", "kcal/mol", 1)
