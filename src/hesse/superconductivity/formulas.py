"""Critical temperatures by fitted formulas: McMillan, and Allen and Dynes.

Sources: McMillan, Phys. Rev. 167, 331 (1968); Allen and Dynes, Phys. Rev. B 12, 905 (1975), equations 2 and 34 to 38.
"""

from __future__ import annotations

import math

__all__ = ["allen_dynes_tc", "mcmillan_tc", "strong_coupling_factors"]


def mcmillan_tc(coupling: float, omega_log: float, mu_star: float) -> float:
    """Critical temperature by McMillan's formula with the prefactor ω_log/1.2 of Allen and Dynes.

    Args:
        coupling: λ.
        omega_log: logarithmic average frequency, in any unit of temperature or energy.
        mu_star: Coulomb pseudopotential μ*.

    Returns:
        T_c in the unit of `omega_log`; 0 where the repulsion is as strong as the attraction.
    """
    attraction = coupling - mu_star * (1 + 0.62 * coupling)
    return omega_log / 1.2 * math.exp(-1.04 * (1 + coupling) / attraction) if attraction > 0 else 0.0


def strong_coupling_factors(coupling: float, mu_star: float, shape: float) -> tuple[float, float]:
    """Factors f₁ (strong coupling) and f₂ (shape of the spectrum) of Allen and Dynes.

    Args:
        coupling: λ.
        mu_star: Coulomb pseudopotential μ*.
        shape: ω₂/ω_log, one for a single frequency.

    Returns:
        f₁ and f₂.
    """
    first = (1 + (coupling / (2.46 * (1 + 3.8 * mu_star))) ** 1.5) ** (1 / 3)
    second = 1 + (shape - 1) * coupling**2 / (coupling**2 + (1.82 * (1 + 6.3 * mu_star) * shape) ** 2)
    return first, second


def allen_dynes_tc(coupling: float, omega_log: float, omega_2: float, mu_star: float) -> float:
    """Critical temperature by the formula of Allen and Dynes: McMillan's, times f₁ and f₂.

    Args:
        coupling: λ.
        omega_log: logarithmic average frequency, in any unit of temperature or energy.
        omega_2: root of the mean squared frequency, in the same unit.
        mu_star: Coulomb pseudopotential μ*.

    Returns:
        T_c in the unit of `omega_log`.
    """
    first, second = strong_coupling_factors(coupling, mu_star, omega_2 / omega_log)
    return first * second * mcmillan_tc(coupling, omega_log, mu_star)
