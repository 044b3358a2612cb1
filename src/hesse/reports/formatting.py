"""How numbers and properties are written in tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hesse.units import KCAL_PER_MOL

__all__ = [
    "PROPERTY_NAMES",
    "ev_to_kcal",
    "format_noise_floor",
    "format_number",
    "format_percent",
    "format_signed",
    "kcal_unit",
]

PROPERTY_NAMES: Final[Mapping[str, str]] = {
    "energy": "energy",
    "energy_per_atom": "energy per atom",
    "forces": "forces",
    "hvp": "Hessian-vector products",
    "hessian": "Hessian",
}
"""Properties, as a reader calls them."""

NEGLIGIBLE_NOISE: Final[float] = 1e-6
"""Noise below this, in any unit, is rounding."""


def format_number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, without exponents for ordinary sizes; a dash for nothing."""
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
    """A noise floor. Labels that obey every symmetry to rounding show none, which is no claim that they have none."""
    return (
        f"< {format_number(NEGLIGIBLE_NOISE)}"
        if value is not None and value < NEGLIGIBLE_NOISE
        else format_number(value)
    )


def format_signed(value: float, digits: int = 0) -> str:
    """With its sign; the minus is a minus."""
    text = f"{value:+.{digits}f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def format_percent(value: float | None, digits: int = 0) -> str:
    """A signed percentage; a dash for nothing."""
    return "–" if value is None else f"{format_signed(value, digits)} %"


def ev_to_kcal(value: float | None) -> float | None:
    """An energy-like value in kcal/mol instead of eV."""
    return None if value is None else value / KCAL_PER_MOL


def kcal_unit(unit: str) -> str:
    """The unit with kcal/mol for eV: "eV/Å²" becomes "kcal/mol/Å²"."""
    return unit.replace("eV", "kcal/mol", 1)
