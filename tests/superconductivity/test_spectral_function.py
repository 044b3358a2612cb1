"""α²F: moments in closed form, modes, and renormalized frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from hesse.errors import RequestError, UnitError
from hesse.superconductivity import SpectralFunction
from hesse.superconductivity.frequency_units import FREQUENCY_UNITS


def test_moments_of_a_box():
    """α²F constant between a and b: λ = 2c ln(b/a), and the mean of ln ω is that of the logarithms of the ends."""
    a, b, c = 0.01, 0.04, 0.5
    grid = np.geomspace(a, b, 4000)
    spectrum = SpectralFunction.from_grid(grid, np.full(len(grid), c))
    assert spectrum.coupling == pytest.approx(2 * c * np.log(b / a), rel=1e-6)
    assert spectrum.omega_log == pytest.approx(np.sqrt(a * b), rel=1e-6)
    assert spectrum.omega_2 == pytest.approx(np.sqrt(0.5 * (b**2 - a**2) / np.log(b / a)), rel=1e-6)
    assert spectrum.cumulative_coupling([0.5 * a, 0.02, b])[[0, 2]] == pytest.approx([0, spectrum.coupling], rel=1e-6)
    assert spectrum.cumulative_coupling([0.02])[0] == pytest.approx(c * np.log(4), rel=1e-2)
    assert spectrum.matsubara_couplings(100.0, 3)[0] == pytest.approx(spectrum.coupling)
    curve_grid = np.linspace(0, 0.06, 3000)
    curve = spectrum.broadened(curve_grid, 5e-4)
    assert np.trapezoid(curve, curve_grid) == pytest.approx(c * (b - a), rel=1e-4)


def test_matsubara_couplings_in_blocks_are_the_same():
    spectrum = SpectralFunction(np.array([0.01, 0.02]), np.array([0.002, 0.001]))
    many = spectrum.matsubara_couplings(3.0, 2500)
    for k in (0, 1, 1023, 1024, 2499):
        nu = 2 * np.pi * 8.617330e-5 * 3.0 * k
        expected = (2 * spectrum.strengths * spectrum.frequencies / (spectrum.frequencies**2 + nu**2)).sum()
        assert many[k] == pytest.approx(expected, rel=1e-6)


def test_modes_and_grid_agree():
    frequencies = np.array([[0.01, 0.02], [0.015, 0.03]])
    couplings = np.array([[0.5, 0.3], [0.2, 0.4]])
    spectrum = SpectralFunction.from_modes(frequencies, couplings, [1, 3])
    weights = np.array([[0.25], [0.75]])
    assert spectrum.coupling == pytest.approx((weights * couplings).sum())
    expected = np.exp((weights * couplings * np.log(frequencies)).sum() / spectrum.coupling)
    assert spectrum.omega_log == pytest.approx(expected)
    grid = np.linspace(1e-3, 0.05, 20000)
    again = SpectralFunction.from_grid(grid, spectrum.broadened(grid, 2e-4))
    assert again.coupling == pytest.approx(spectrum.coupling, rel=2e-3)
    assert again.omega_2 == pytest.approx(spectrum.omega_2, rel=1e-3)


def test_renormalized_frequencies():
    frequencies = np.array([[0.01, 0.02], [0.015, 0.03]])
    couplings = np.array([[0.5, 0.3], [0.2, 0.4]])
    spectrum = SpectralFunction.from_modes(frequencies, couplings)
    same = spectrum.renormalized(frequencies, frequencies)
    assert same.coupling == pytest.approx(spectrum.coupling, rel=1e-12)
    harder = spectrum.renormalized(frequencies, 1.3 * frequencies)
    assert harder.coupling == pytest.approx(spectrum.coupling / 1.3**2)
    assert harder.omega_log == pytest.approx(1.3 * spectrum.omega_log)
    # One soft mode hardens, by modes: the exact change. The map of frequencies knows no modes, but keeps the order.
    after = frequencies.copy()
    after[0, 0] = 0.014
    exact = SpectralFunction.from_modes(after, couplings * (frequencies / after) ** 2)
    mapped = spectrum.renormalized(frequencies, after)
    assert mapped.coupling == pytest.approx(exact.coupling, rel=0.02)
    assert mapped.coupling < spectrum.coupling


def test_renormalized_in_the_units_of_phonons():
    frequencies = np.array([[0.01, 0.02], [0.015, 0.03]])
    spectrum = SpectralFunction.from_modes(frequencies, np.full((2, 2), 0.3))
    for unit in ("THz", "meV", "cm-1"):
        size = FREQUENCY_UNITS[unit]
        same = spectrum.renormalized(frequencies / size, 1.3 * frequencies / size, unit=unit)
        assert same.coupling == pytest.approx(spectrum.coupling / 1.3**2)
    terahertz = frequencies / FREQUENCY_UNITS["THz"]
    with pytest.raises(RequestError, match=r'before: .* is 0.03 eV; .* is 7.254 eV. .* another unit: unit="THz" fits'):
        spectrum.renormalized(terahertz, 1.1 * terahertz)
    with pytest.raises(RequestError, match="before: expected the same phonons"):
        spectrum.renormalized(1e3 * frequencies, 1e3 * frequencies, unit="THz")
    with pytest.raises(RequestError, match="after: expected the same phonons"):
        spectrum.renormalized(frequencies, terahertz)
    with pytest.raises(UnitError, match="unknown unit"):
        spectrum.renormalized(frequencies, frequencies, unit="parsec")


def test_zeros_above_the_phonons_are_no_other_phonons():
    grid = np.linspace(0.001, 0.1, 100)
    spectrum = SpectralFunction.from_grid(grid, np.where(grid < 0.03, 0.3, 0.0))
    assert spectrum.renormalized([0.01, 0.1], [0.012, 0.1]).coupling < spectrum.coupling


def test_units_of_curves_and_modes():
    curve = SpectralFunction.from_grid([10, 20, 30], [0.1, 0.3, 0.2], unit="meV")
    assert curve.coupling == pytest.approx(SpectralFunction.from_grid([1, 2, 3], [0.1, 0.3, 0.2]).coupling)
    assert curve.frequencies[-1] == pytest.approx(0.03)
    modes = SpectralFunction.from_modes([[1.0, 2.0]], [[0.1, 0.3]], unit="THz")
    assert modes.highest_frequency == pytest.approx(2 * FREQUENCY_UNITS["THz"])
    with pytest.raises(RequestError, match=r"A curve of α²F: SpectralFunction.from_grid"):
        SpectralFunction(np.array([0.01]), np.array([0.1, 0.2]))


@pytest.mark.parametrize(
    ("frequencies", "values", "message"),
    [
        ([0.01], [1.0], "two or more frequencies"),
        ([0.01, 0.01, 0.02], [1.0, 1.0, 1.0], "have to ascend; after 0.01 eV comes 0.01"),
        ([0.01, np.nan], [1.0, 1.0], "finite"),
        ([-0.01, 0.01, 0.02], [1.0, 1.0, 1.0], "imaginary modes"),
        ([0.01, 0.02, 0.03], [1.0, -1.0, 1.0], "cannot be negative, but negative values are"),
        ([0.01, 0.02, 0.03], [0.0, 0.0, 0.0], "not zero everywhere"),
    ],
)
def test_impossible_spectra(frequencies, values, message):
    with pytest.raises(RequestError, match=message):
        SpectralFunction.from_grid(frequencies, values)


def test_negative_values_can_be_kept():
    grid, values = np.linspace(0.01, 0.03, 21), np.full(21, 0.4)
    values[3] = -0.3
    kept = SpectralFunction.from_grid(grid, values, allow_negative=True)
    assert "% of λ" in kept.notes[0]
    assert kept.coupling == pytest.approx(2 * np.trapezoid(values / grid, grid))


def test_impossible_modes():
    with pytest.raises(RequestError, match="imaginary modes"):
        SpectralFunction.from_modes([[-0.01, 0.02]], [[0.1, 0.1]])
    with pytest.raises(RequestError, match="cannot be negative"):
        SpectralFunction.from_modes([[0.01, 0.02]], [[0.1, -0.1]])
    with pytest.raises(RequestError, match="weights"):
        SpectralFunction.from_modes([[0.01, 0.02]], [[0.1, 0.1]], [1, 2])
    spectrum = SpectralFunction.from_modes([[0.01, 0.02]], [[0.1, 0.1]])
    with pytest.raises(RequestError, match="before are imaginary"):
        spectrum.renormalized([[-0.01, 0.02]], [[0.01, 0.02]])
    with pytest.raises(RequestError, match="same phonons"):
        spectrum.renormalized([[0.01, 0.02]], [[0.01, 0.02], [0.01, 0.02]])


def test_mostly_negative_values_are_told_in_words() -> None:
    with pytest.raises(RequestError, match="negative values are larger than λ, or λ is not above zero: was"):
        SpectralFunction.from_grid([1e-3, 2e-3, 3e-3], [-0.5, 0.3, -0.2])
