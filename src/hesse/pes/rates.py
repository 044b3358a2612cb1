"""Rate constants by transition-state theory."""

from __future__ import annotations

import numpy as np
from ase.units import second
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM

__all__ = ["eyring_rate", "wigner_factor"]


def eyring_rate(gibbs_barrier: ArrayLike, temperature: ArrayLike) -> Float[Array, "temperatures"]:
    """The rate constant of transition-state theory, `kT/h exp(−ΔG‡/kT)` (Eyring, J. Chem. Phys. 3, 107 (1935)).

    It is that of a reactant that is one structure. For two molecules that meet, ΔG‡ from separated molecules at 1 bar
    gives the rate at a partner pressure of 1 bar.

    Args:
        gibbs_barrier: Gibbs energy of activation at each temperature, eV.
        temperature: K.

    Returns:
        Rate constants, 1/s.

    Raises:
        ConfigError: a temperature that is not positive.
    """
    kelvin = _positive(temperature)
    frequency = BOLTZMANN * kelvin / (2.0 * np.pi * HBAR) * second
    rate: Float[Array, "temperatures"] = frequency * np.exp(
        -np.asarray(gibbs_barrier, dtype=float) / BOLTZMANN / kelvin
    )
    return rate


def wigner_factor(frequency: float, temperature: ArrayLike) -> Float[Array, "temperatures"]:
    """The factor by which tunneling speeds up a reaction, `1 + (hν/kT)²/24` (Wigner, Z. Phys. Chem. B 19, 203 (1932)).

    It is the first term of a series: where it exceeds about 2, tunneling needs a better theory.

    Args:
        frequency: wavenumber of the imaginary mode of the transition state, cm⁻¹, of either sign.
        temperature: K.

    Returns:
        The factor at each temperature.

    Raises:
        ConfigError: a temperature that is not positive.
    """
    kelvin = _positive(temperature)
    factor: Float[Array, "temperatures"] = 1.0 + (frequency * INVERSE_CM / BOLTZMANN / kelvin) ** 2 / 24.0
    return factor


def _positive(temperature: ArrayLike) -> Float[Array, "temperatures"]:
    kelvin = np.atleast_1d(np.asarray(temperature, dtype=float))
    if not (np.isfinite(kelvin).all() and (kelvin > 0).all()):
        raise ConfigError(f"expected positive temperatures in K, got {temperature!r}")
    return kelvin
