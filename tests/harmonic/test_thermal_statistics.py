"""Quantum displacements along normal modes: against ASE's phonon harmonics, closed forms and limits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import units
from ase.md.velocitydistribution import phonon_harmonics

import oracles
from hesse.errors import ConfigError, UnknownOptionError
from hesse.harmonic.normal_modes import normal_modes, thermal_displacements
from hesse.structures import Structure
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM


@pytest.fixture(scope="module")
def modes():
    x = 1.1 / np.sqrt(8) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    four = Structure([6, 8, 6, 1], x, id="four")
    return normal_modes(four, oracles.Morse().exact(four).hessian)


def squares(modes, temperature, **options):
    """Mean squares of the normal coordinates, exactly: displacements are linear in the random numbers."""
    n = 3 * len(modes.masses)

    class Unit:
        def normal(self, size):
            return np.eye(n)

    moved = thermal_displacements(modes, temperature, Unit(), count=n, min_frequency=1e-3, **options)
    weighted = moved * np.sqrt(modes.masses)[:, None]
    return np.square(np.einsum("cax,kax->ck", weighted, modes.vectors)).sum(0)


def test_the_variance_is_that_of_the_quantum_oscillator(modes) -> None:
    omega = modes.frequencies * INVERSE_CM / HBAR
    for temperature in (50.0, 300.0, 2000.0):
        occupation = 1.0 / np.expm1(HBAR * omega / (BOLTZMANN * temperature))
        expected = HBAR / omega * (occupation + 0.5)
        np.testing.assert_allclose(squares(modes, temperature, statistics="quantum"), expected, rtol=1e-9)
    np.testing.assert_allclose(squares(modes, 0.0, statistics="quantum"), 0.5 * HBAR / omega, rtol=1e-9)
    hot = squares(modes, 1e6, statistics="quantum")
    np.testing.assert_allclose(hot, squares(modes, 1e6), rtol=1e-4)
    np.testing.assert_allclose(squares(modes, 300.0), BOLTZMANN * 300.0 / omega**2, rtol=1e-9)
    # The mean potential energy is half of the energy of the oscillators: zero-point energy at 0 K.
    potential = 0.5 * (omega**2 * squares(modes, 0.0, statistics="quantum")).sum()
    assert potential == pytest.approx(0.5 * modes.zero_point_energy, rel=1e-9)


def test_against_the_phonon_harmonics_of_ase(modes) -> None:
    """ASE draws amplitudes of mean ħ(2n+1)/(2ω) in the same way, from 3N eigenvectors, the first three left out; with
    springs to the ground for the rotations the modes are the same. 6,000 draws of ASE, a relative error of 1.8 %, held
    to 4.5 of it."""
    n = len(modes.masses)
    vectors = modes.vectors.reshape(len(modes), 3 * n)
    weights = np.repeat(np.sqrt(modes.masses), 3)
    mass_weighted = (vectors.T * modes.eigenvalues) @ vectors
    rigid = np.linalg.svd(vectors)[2][len(modes) :]
    mass_weighted += rigid[3:].T @ rigid[3:] * np.median(modes.eigenvalues)
    mass_weighted += 1e-9 * rigid[:3].T @ rigid[:3]
    constants = mass_weighted * np.outer(weights, weights)
    rng = np.random.RandomState(0)
    temperature = 300.0
    total = np.zeros(len(modes))
    draws = 6000
    warnings.simplefilter("ignore", FutureWarning)  # of ASE by itself; pytest restores the filters
    for _ in range(draws):
        moved, _ = phonon_harmonics(constants, modes.masses, temp=temperature * units.kB, quantum=True, rng=rng.rand)
        total += np.square(vectors @ (weights * moved.ravel()))
    ours = squares(modes, temperature, statistics="quantum")
    np.testing.assert_allclose(total / draws, ours, rtol=4.5 * np.sqrt(2 / draws))


def test_invalid_statistics_get_a_reply(modes) -> None:
    rng = np.random.default_rng(0)
    for temperature, statistics in ((0.0, "classical"), (-1.0, "quantum"), (np.nan, "quantum")):
        with pytest.raises(ConfigError, match="temperature"):
            thermal_displacements(modes, temperature, rng, statistics=statistics)
    with pytest.raises(UnknownOptionError, match="statistics"):
        thermal_displacements(modes, 300.0, rng, statistics="bose")
