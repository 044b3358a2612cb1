"""Error bars against the spread of many Hessians with random errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import oracles
from hesse.errors import ConfigError, RequestError
from hesse.harmonic.error_propagation import eigenvalue_covariance, error_of_sum, frequency_errors
from hesse.harmonic.normal_modes import NormalModes, normal_modes
from hesse.harmonic.thermochemistry import ThermoSettings, thermochemistry
from hesse.structures import Structure
from hesse.units import INVERSE_CM

SIGMA = 2e-3
WATER = Structure([8, 1, 1], [[0, 0, 0.1193], [0, 0.7632, -0.4770], [0, -0.7632, -0.4770]])


def stiff() -> tuple[Structure, np.ndarray]:
    hessian = oracles.Morse().exact(WATER).hessian
    return WATER, hessian + 20.0 * np.eye(9).reshape(3, 3, 3, 3)


def noisy(hessian: np.ndarray, seed: int) -> np.ndarray:
    n = 3 * len(hessian)
    noise = np.random.default_rng(seed).normal(scale=SIGMA, size=(n, n))
    return hessian + (np.triu(noise) + np.triu(noise, 1).T).reshape(hessian.shape)


@pytest.fixture(scope="module")
def spread() -> tuple[NormalModes, list[NormalModes]]:
    structure, hessian = stiff()
    return normal_modes(structure, hessian), [normal_modes(structure, noisy(hessian, k)) for k in range(2000)]


@pytest.mark.slow
def test_independent_errors(spread: tuple[NormalModes, list[NormalModes]]) -> None:
    """The standard deviation of 2000 numbers is known to 1.6 %; limits are at five times that."""
    modes, samples = spread
    frequencies = np.array([sample.frequencies for sample in samples])
    assert frequency_errors(modes, SIGMA, proportional=False) == pytest.approx(frequencies.std(0), rel=0.08)
    eigenvalues = np.array([sample.eigenvalues for sample in samples])
    covariance = eigenvalue_covariance(modes, SIGMA, proportional=False)
    scale = np.sqrt(np.diagonal(covariance))
    assert covariance / np.outer(scale, scale) == pytest.approx(np.corrcoef(eigenvalues.T), abs=0.11)
    total = error_of_sum(modes, SIGMA, lambda nu: nu, proportional=False)
    assert total == pytest.approx(frequencies.sum(1).std(), rel=0.08)


def test_errors_in_proportion_to_the_hessian_add() -> None:
    structure, hessian = stiff()
    modes = normal_modes(structure, hessian)
    internal = np.einsum("k,kia,kjb->iajb", modes.eigenvalues, *2 * [modes.vectors * np.sqrt(modes.masses)[:, None]])
    ratio = SIGMA / np.sqrt(np.mean(internal**2))
    scaled = normal_modes(structure, (1.0 + ratio) * hessian)
    both, noise = frequency_errors(modes, SIGMA), frequency_errors(modes, SIGMA, proportional=False)
    assert np.sqrt(both**2 - noise**2) == pytest.approx(scaled.frequencies - modes.frequencies, rel=1e-3)
    partial = normal_modes(structure, hessian, atoms=[0, 1])
    assert (frequency_errors(partial, SIGMA) > frequency_errors(partial, SIGMA, proportional=False)).all()


@pytest.mark.slow
def test_thermochemistry(spread: tuple[NormalModes, list[NormalModes]]) -> None:
    """Never below the spread by independent errors, and the stated sum over modes otherwise."""
    modes, samples = spread
    settings = ThermoSettings(temperature=[300.0, 1500.0], method="grimme", symmetry=1)
    result = thermochemistry(WATER, modes, settings, hessian_error=SIGMA)
    runs = [thermochemistry(WATER, sample, settings) for sample in samples]
    assert (result.errors["gibbs"] > 0.92 * np.std([run.gibbs_correction for run in runs], axis=0)).all()
    assert (result.errors["entropy"] > 0.92 * np.std([run.entropy for run in runs], axis=0)).all()
    half = 0.5 * INVERSE_CM
    assert result.errors["zpe"] == pytest.approx(float(error_of_sum(modes, SIGMA, lambda nu: half * nu)), rel=1e-6)
    slopes = [thermochemistry(WATER, replace(modes, frequencies=modes.frequencies * f), settings) for f in (1.0, 1.001)]
    independent = np.std([run.gibbs_correction for run in runs], axis=0)
    internal = np.sum(np.outer(modes.eigenvalues, modes.eigenvalues) * overlaps(modes) ** 2)
    ratio = SIGMA * 9 / np.sqrt(internal)
    proportional = 0.5 * ratio * (slopes[1].gibbs_correction - slopes[0].gibbs_correction) / 0.001
    assert result.errors["gibbs"] == pytest.approx(np.hypot(independent, proportional), rel=0.08)


def overlaps(modes: NormalModes) -> np.ndarray:
    dual = (modes.vectors * np.sqrt(modes.masses)[:, None]).reshape(len(modes), -1)
    return dual @ dual.T


def test_a_mode_at_zero_has_a_finite_error() -> None:
    structure, hessian = stiff()
    modes = normal_modes(structure, 1e-9 * hessian)
    errors = frequency_errors(modes, SIGMA)
    assert np.isfinite(errors).all()
    assert (errors > 5.0).all()
    terms = thermochemistry(structure, modes, hessian_error=SIGMA)
    assert np.isfinite(terms.errors["gibbs"]).all()


def test_wrong_errors_get_a_reply() -> None:
    modes = normal_modes(*stiff())
    with pytest.raises(RequestError, match="not below zero"):
        frequency_errors(modes, -1.0)
    with pytest.raises(ConfigError, match="expected a number"):
        frequency_errors(modes, "large")  # type: ignore[arg-type]
    assert frequency_errors(modes, 0.0) == pytest.approx(np.zeros(len(modes)), abs=1e-3)
