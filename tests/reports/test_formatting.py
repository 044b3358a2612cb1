"""Text of numbers in tables and figures."""

from __future__ import annotations

import pytest

from hesse.reports.formatting import (
    ev_to_kcal,
    format_noise_floor,
    format_number,
    format_percent,
    format_signed,
    kcal_unit,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.012345, "0.0123"),
        (0.1, "0.100"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (999.9, "1000"),
        (1234.5, "1230"),
        (-54321.0, "-54300"),
        (2.34e-5, "2.3e-5"),
        (1.2e7, "1.2e7"),
    ],
)
def test_three_digits(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_percentages_have_a_sign() -> None:
    assert (format_percent(-66.4), format_percent(3.21, 1), format_percent(-0.2), format_percent(None)) == (
        "−66 %",
        "+3.2 %",
        "−0.2 %",
        "–",
    )
    assert [format_percent(value) for value in (0.97, -0.021, 0.0, 1e-9, 1.4)] == [
        "+1.0 %",
        "−0.02 %",
        "0 %",
        "0 %",
        "+1 %",
    ], "a small change is not none"
    assert format_signed(-1.0) == "−1"


def test_kcal_per_mol_is_the_thermochemical_one() -> None:
    # 1 eV = 96.48533 kJ/mol (CODATA) and 1 kcal = 4.184 kJ.
    assert ev_to_kcal(1.0) == pytest.approx(96.48533 / 4.184, rel=1e-6)
    assert ev_to_kcal(None) is None
    assert kcal_unit("eV/Å²") == "kcal/mol/Å²"


def test_rounding_errors_are_not_shown_as_noise() -> None:
    assert (format_noise_floor(3e-16), format_noise_floor(0.02), format_noise_floor(None)) == (
        "< 1.0e-6",
        "0.0200",
        "–",
    )
