"""Critical temperatures: formulas against published numbers, Eliashberg equations against their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

import hesse
from hesse.errors import HarmonicWarning, RequestError, UnitError
from hesse.superconductivity import SpectralFunction, allen_dynes_tc, mcmillan_tc, strong_coupling_factors
from hesse.superconductivity.eliashberg import eliashberg_tc, largest_eigenvalue, lowest_temperature, rescaled_mu_star
from hesse.units import BOLTZMANN

FREQUENCY = 0.01


@pytest.mark.parametrize(
    ("coupling", "omega_log", "mu_star", "expected"),
    [
        (0.949525, 84.723, 0.10, 5.434),
        (0.630888, 76.541, 0.10, 2.027),
        (0.8714948, 61.4704e-3 / BOLTZMANN, 0.16, 26.4082),
    ],
)  # fmt: skip
def test_mcmillan_gives_published_numbers(coupling, omega_log, mu_star, expected):
    """Lead with two sets of pseudopotentials, and MgB2 by EPW (from their λ and ω_log, K)."""
    assert mcmillan_tc(coupling, omega_log, mu_star) == pytest.approx(expected, abs=6e-4)


def test_allen_dynes_of_mgb2_follows_from_a_sensible_shape():
    """EPW prints 27.4569 K, but not ω₂: it has to lie above ω_log, and not far."""
    omega_log = 61.4704e-3 / BOLTZMANN
    values = [allen_dynes_tc(0.8714948, omega_log, x * omega_log, 0.16) for x in (1.0, 1.14, 1.16)]
    assert values[0] == pytest.approx(26.4082 * strong_coupling_factors(0.8714948, 0.16, 1.0)[0], abs=1e-3)
    assert values[1] < 27.4569 < values[2]


def test_no_attraction_no_superconductivity():
    assert mcmillan_tc(0.1, 300.0, 0.15) == 0


@pytest.mark.parametrize(("coupling", "share"), [(1e3, 5e-4), (1e4, 2e-4)])
def test_strong_coupling_limit(coupling, share):
    """T_c = 0.1827 ω √λ (Allen and Dynes)."""
    temperature = eliashberg_tc(SpectralFunction.einstein(FREQUENCY, coupling), 0.0)
    assert temperature * BOLTZMANN / (FREQUENCY * math.sqrt(coupling)) == pytest.approx(0.18273, rel=share)


def test_weak_coupling_limit():
    """T_c = (2 e^γ/π) e^(−½) ω exp(−(1 + λ)/λ) for λ → 0 (Marsiglio 2018); the ratio approaches one linearly."""
    ratios = []
    for coupling in (0.25, 0.30, 0.35):
        found = eliashberg_tc(SpectralFunction.einstein(FREQUENCY, coupling), 0.0) * BOLTZMANN
        limit = 2 * math.exp(np.euler_gamma) / math.pi * math.exp(-0.5 - (1 + coupling) / coupling) * FREQUENCY
        ratios.append(found / limit)
    slope, at_zero = np.polyfit([0.25, 0.30, 0.35], ratios, 1)
    assert at_zero == pytest.approx(1.0, abs=0.02)
    assert 0 < slope < 0.5


@pytest.mark.parametrize("coupling", [0.5, 1.0, 1.8, 3.0])
def test_the_formula_of_allen_and_dynes_is_near_for_narrow_spectra(coupling):
    grid = np.linspace(0, 0.03, 61)
    box = SpectralFunction.from_grid(grid, np.where(grid > 0.02, 1.0, 0.0))
    spectrum = SpectralFunction(box.frequencies, box.strengths * coupling / box.coupling)
    rows = hesse.tc(spectrum, [0.1, 0.15]).rows
    for row in rows:
        assert row.eliashberg == pytest.approx(row.allen_dynes, rel=0.03)
        assert row.eliashberg_uncertainty < 0.01 * row.eliashberg
    assert rows[0].eliashberg > rows[1].eliashberg


def test_the_eigenvalue_is_that_of_the_gap_equation():
    """Δ_n Z_n = πT Σ_m [λ(n − m) − μ*] Δ_m/|ω_m| over positive and negative frequencies has the eigenvalue one."""
    spectrum = SpectralFunction(np.array([0.01, 0.02]), np.array([0.004, 0.006]))
    mu_star = 0.12
    found = eliashberg_tc(spectrum, mu_star, cutoff=0.1, mu_star_at=0.1)
    n = max(64, round(0.1 / (2 * math.pi * BOLTZMANN * found)))
    index = np.arange(-n, n)
    omega = (2 * index + 1) * math.pi * BOLTZMANN * found
    nu = omega[:, None] - omega
    coupling = (2 * spectrum.strengths * spectrum.frequencies / (nu[..., None] ** 2 + spectrum.frequencies**2)).sum(-1)
    wide = np.arange(-40 * n, 40 * n)
    all_omega = (2 * wide + 1) * math.pi * BOLTZMANN * found
    z = np.array([
        1 + math.pi * BOLTZMANN * found / w * (np.sign(all_omega) * (
            2 * spectrum.strengths[:, None] * spectrum.frequencies[:, None]
            / ((w - all_omega) ** 2 + spectrum.frequencies[:, None] ** 2)).sum(0)).sum()
        for w in omega
    ])  # fmt: skip
    actual = rescaled_mu_star(mu_star, 0.1, 2 * n * math.pi * BOLTZMANN * found)
    kernel = math.pi * BOLTZMANN * found * (coupling - actual) / np.abs(omega) / z[:, None]
    assert np.linalg.eigvals(kernel).real.max() == pytest.approx(1.0, abs=2e-4)
    assert largest_eigenvalue(spectrum, 0.99 * found, mu_star=mu_star, mu_star_at=0.1, cutoff=0.1) > 0
    assert largest_eigenvalue(spectrum, 1.01 * found, mu_star=mu_star, mu_star_at=0.1, cutoff=0.1) < 0


def test_mu_star_belongs_to_a_cutoff():
    assert 1 / rescaled_mu_star(0.1, 1.0, 10.0) == pytest.approx(10 - math.log(10))
    assert rescaled_mu_star(0.0, 1.0, 10.0) == 0
    spectrum = SpectralFunction.einstein(0.02, 1.0)
    fixed = hesse.tc(spectrum, 0.1).rows[0]
    raw = hesse.tc(spectrum, 0.1, mu_star_at="cutoff").rows[0]
    assert raw.eliashberg > 1.05 * fixed.eliashberg
    assert raw.eliashberg_uncertainty > 5 * fixed.eliashberg_uncertainty


def test_below_the_lowest_temperature_nothing_is_claimed():
    result = hesse.tc(SpectralFunction.einstein(0.02, 0.15), 0.1)
    assert result.rows[0].eliashberg is None
    assert result.lowest_temperature == lowest_temperature(0.1)
    assert "<" in result.summary()


@pytest.mark.parametrize("mu_star", [-0.1, 0.5, float("nan")])
def test_impossible_mu_star(mu_star):
    with pytest.raises(RequestError, match=r"μ\* from 0 to 0.4"):
        hesse.tc(SpectralFunction.einstein(0.02, 1.0), mu_star)


def test_what_people_try_gets_a_reply():
    with pytest.raises(RequestError, match="mu_star_at"):
        hesse.tc(SpectralFunction.einstein(0.02, 1.0), mu_star_at="somewhere")
    with pytest.raises(RequestError, match="got ndarray"):
        hesse.tc(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="belong to files"):
        hesse.tc(SpectralFunction.einstein(0.02, 1.0), unit="meV")


def test_two_arrays_with_a_unit():
    grid = np.linspace(0.5, 40, 80)
    values = 2.0 * np.exp(-(((grid - 20) / 5) ** 2))
    direct = hesse.tc(SpectralFunction.from_grid(1e-3 * grid, values), 0.1)
    for arrays in ((grid, values), [grid.tolist(), values.tolist()], np.array([grid, values])):
        assert hesse.tc(arrays, 0.1, unit="meV").rows == direct.rows
    with pytest.raises(UnitError, match="add unit="):
        hesse.tc((grid, values))
    with pytest.raises(RequestError, match="column belongs to files"):
        hesse.tc((grid, values), unit="meV", column=1)
    with pytest.raises(RequestError, match=r"two arrays \(frequencies, alpha2f\) with their unit.*from_grid"):
        hesse.tc(np.array([grid, values]).T, unit="meV")


def test_unlikely_numbers_are_told():
    grid, values = np.linspace(0.5, 10, 20), np.full(20, 0.8)
    with pytest.warns(HarmonicWarning, match=r"10000 meV: no phonon is above 600 meV. Is the unit"):
        hesse.tc((grid, values), unit="eV")
    with pytest.warns(HarmonicWarning, match=r"λ = .*from_grid takes its curve"):
        hesse.tc(SpectralFunction(1e-3 * grid, values))
