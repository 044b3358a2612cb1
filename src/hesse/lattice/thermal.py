"""Thermodynamic functions of harmonic phonons, from frequencies and weights of a mesh of wave vectors.

Each mode of energy ε adds ε/2 + kT ln(1 − exp(−ε/kT)) to the free energy. Imaginary modes, and those below a cutoff,
do not contribute; the three rigid translations at Γ are such modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import units
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError
from hesse.runtime.short_repr import ShortRepr
from hesse.units import BOLTZMANN

__all__ = ["THZ", "ThermalProperties", "as_temperatures", "thermal_properties"]

THZ = float(units._hplanck * units.J * 1e12)
"""The energy of 1 THz, h times 10¹² Hz, in eV."""
CUTOFF = 1e-2
"""THz; modes below it do not contribute."""


@dataclass(frozen=True, eq=False, repr=False)
class ThermalProperties(ShortRepr):
    """Thermodynamic functions at constant volume, per primitive cell.

    Attributes:
        temperatures: K, `[temperatures]`.
        zpe: zero-point energy, eV.
        free_energy: Helmholtz free energy with the zero-point energy, eV.
        entropy: eV/K.
        heat_capacity: C_V, eV/K.
        imaginary_fraction: fraction of all modes that are imaginary.
    """

    temperatures: Float[Array, "temperatures"]
    zpe: float
    free_energy: Float[Array, "temperatures"]
    entropy: Float[Array, "temperatures"]
    heat_capacity: Float[Array, "temperatures"]
    imaginary_fraction: float

    def rows(self) -> list[Mapping[str, float]]:
        """The numbers as rows.

        Returns:
            `temperature`, `free_energy`, `entropy` and `heat_capacity` of each temperature.
        """
        return [
            {
                "temperature": float(t),
                "free_energy": float(self.free_energy[k]),
                "entropy": float(self.entropy[k]),
                "heat_capacity": float(self.heat_capacity[k]),
            }
            for k, t in enumerate(self.temperatures)
        ]


def as_temperatures(temperatures: ArrayLike) -> Float[Array, "temperatures"]:
    """Convert to temperatures, and check them.

    Args:
        temperatures: K.

    Returns:
        The temperatures.

    Raises:
        ConfigError: not numbers, negative, or none.
    """
    try:
        result = np.atleast_1d(np.asarray(temperatures, dtype=np.float64))
    except (TypeError, ValueError):
        raise ConfigError(f"temperature: expected numbers of K, got {temperatures!r}") from None
    if result.ndim != 1 or not len(result) or not (np.isfinite(result).all() and (result >= 0).all()):
        raise ConfigError(f"temperature: expected numbers of K that are not negative, got {result.tolist()}")
    return result


def thermal_properties(
    frequencies: Float[Array, "q modes"],
    weights: Float[Array, "q"],
    temperatures: ArrayLike,
    *,
    cutoff: float = CUTOFF,
) -> ThermalProperties:
    """Compute thermodynamic functions.

    Args:
        frequencies: THz, imaginary ones negative, `[q, modes]`.
        weights: of the wave vectors, of any sum.
        temperatures: K; at 0 K the limits.
        cutoff: modes below it do not contribute, THz.

    Returns:
        The functions.

    Raises:
        ConfigError: temperatures that are none.
    """
    kelvins = as_temperatures(temperatures)
    share = (np.asarray(weights, dtype=float) / np.sum(weights))[:, None] * np.ones_like(frequencies)
    counted = frequencies > cutoff
    energies, w = THZ * frequencies[counted], share[counted]
    zpe = float(0.5 * w @ energies)
    free, entropy, capacity = np.full(len(kelvins), zpe), np.zeros(len(kelvins)), np.zeros(len(kelvins))
    for k in np.flatnonzero(kelvins > 0):
        kt = BOLTZMANN * kelvins[k]
        x = energies / kt
        occupied = np.exp(-x)
        logs = np.log1p(-occupied)
        planck = x * occupied / -np.expm1(-x)  # x / (exp(x) - 1)
        free[k] += kt * float(w @ logs)
        entropy[k] = BOLTZMANN * float(w @ (planck - logs))
        capacity[k] = BOLTZMANN * float(w @ (planck * x / -np.expm1(-x)))
    imaginary = float(share[frequencies < -cutoff].sum()) / frequencies.shape[1]
    return ThermalProperties(kelvins, zpe, free, entropy, capacity, imaginary)
