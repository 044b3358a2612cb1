"""Isotropic Eliashberg equations on the imaginary axis, linearized at T_c.

At Matsubara frequencies ω_n = (2n + 1) π k_B T, the linearized gap equation is an eigenvalue problem of a matrix

    K_mn = λ(m − n) + λ(m + n + 1) − 2 μ*(N) − δ_mn [2m + 1 + λ(0) + 2 Σ_{l=1..m} λ(l)],    m, n = 0 ... N − 1,

whose largest eigenvalue is zero at T_c (Bergmann and Rainer 1973; Allen and Dynes, Phys. Rev. B 12, 905 (1975)). The
renormalization Z is contained exactly; only the gap is cut off, at N frequencies.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy.linalg import eigh, toeplitz
from scipy.optimize import brentq

from hesse.superconductivity.formulas import allen_dynes_tc
from hesse.superconductivity.spectral_function import SpectralFunction
from hesse.units import BOLTZMANN

__all__ = ["eliashberg_tc", "largest_eigenvalue", "lowest_temperature", "rescaled_mu_star"]

MAX_FREQUENCIES: Final = 2000
"""Size of the largest matrix: lower temperatures need more Matsubara frequencies."""
MIN_FREQUENCIES: Final = 64
"""Fewer would not be converged at temperatures above the phonon frequencies (very strong coupling)."""


def rescaled_mu_star(mu_star: float, defined_at: float, cutoff: float) -> float:
    """μ* for another cutoff: 1/μ*(cutoff) = 1/μ* + ln(defined_at/cutoff).

    Args:
        mu_star: Coulomb pseudopotential μ*.
        defined_at: the frequency to which it belongs.
        cutoff: the frequency to which the result belongs, in the same unit.

    Returns:
        The pseudopotential.
    """
    return 0.0 if mu_star == 0 else 1 / (1 / mu_star + math.log(defined_at / cutoff))


def largest_eigenvalue(
    spectrum: SpectralFunction, temperature: float, *, mu_star: float, mu_star_at: float, cutoff: float
) -> float:
    """The largest eigenvalue of the linearized gap equation: above zero below T_c, below zero above it.

    Args:
        spectrum: α²F.
        temperature: K.
        mu_star: Coulomb pseudopotential.
        mu_star_at: frequency to which μ* belongs, eV.
        cutoff: highest Matsubara frequency, eV.

    Returns:
        The eigenvalue.
    """
    n = max(MIN_FREQUENCIES, round(cutoff / (2 * np.pi * BOLTZMANN * temperature)))
    couplings = spectrum.matsubara_couplings(temperature, 2 * n)
    index = np.arange(n)
    actual = (2 * n * np.pi * BOLTZMANN) * temperature
    matrix = toeplitz(couplings[:n]) + couplings[index[:, None] + index + 1]
    matrix -= 2 * rescaled_mu_star(mu_star, mu_star_at, actual)
    sums = np.concatenate([[0.0], np.cumsum(couplings[1:n])])
    matrix[index, index] -= 2 * index + 1 + couplings[0] + 2 * sums
    return float(eigh(matrix, eigvals_only=True, subset_by_index=(n - 1, n - 1), check_finite=False)[0])


def lowest_temperature(cutoff: float) -> float:
    """The lowest temperature at which the gap equation is solved.

    Args:
        cutoff: highest Matsubara frequency, eV.

    Returns:
        The temperature, K.
    """
    return cutoff / (2 * math.pi * BOLTZMANN * MAX_FREQUENCIES)


def eliashberg_tc(
    spectrum: SpectralFunction,
    mu_star: float,
    *,
    cutoff: float | None = None,
    mu_star_at: float | None = None,
    guess: float | None = None,
) -> float | None:
    """Critical temperature of the isotropic Eliashberg equations.

    Args:
        spectrum: α²F.
        mu_star: Coulomb pseudopotential.
        cutoff: highest Matsubara frequency, eV; default: ten times the highest frequency of α²F.
        mu_star_at: frequency to which μ* belongs, eV; default: the highest frequency of α²F. It is rescaled to the
            cutoff, so that T_c converges with it.
        guess: about T_c, K, which saves time; default: by the formula of Allen and Dynes.

    Returns:
        T_c, K; None if it is below `lowest_temperature`, or zero.
    """
    highest = spectrum.highest_frequency
    cutoff = 10 * highest if cutoff is None else cutoff
    options = {"mu_star": mu_star, "mu_star_at": highest if mu_star_at is None else mu_star_at, "cutoff": cutoff}
    lowest = lowest_temperature(cutoff)
    if guess is None:
        guess = allen_dynes_tc(spectrum.coupling, spectrum.omega_log, spectrum.omega_2, mu_star) / BOLTZMANN

    def eigenvalue(log_temperature: float) -> float:
        return largest_eigenvalue(spectrum, math.exp(log_temperature), **options)

    # The eigenvalue falls with temperature: widen the interval around the guess until T_c is inside.
    low = high = math.log(max(guess, lowest))
    at_low = at_high = eigenvalue(low)
    step = 0.02
    while at_low <= 0:
        if math.exp(low) <= lowest * (1 + 1e-9):
            return None
        high, at_high = low, at_low
        low = max(low - step, math.log(lowest))
        at_low = eigenvalue(low)
        step *= 3
    while at_high > 0:
        low, at_low = high, at_high
        high += step
        at_high = eigenvalue(high)
        step *= 3
    return float(math.exp(brentq(eigenvalue, low, high, xtol=1e-6)))
