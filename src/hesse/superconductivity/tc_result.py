"""Critical temperatures of one spectral function, by formulas and by the Eliashberg equations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from hesse.errors import HarmonicWarning, RequestError, UnitError
from hesse.runtime.short_repr import ShortRepr
from hesse.superconductivity.eliashberg import eliashberg_tc, lowest_temperature
from hesse.superconductivity.formulas import allen_dynes_tc, mcmillan_tc, strong_coupling_factors
from hesse.superconductivity.frequency_units import FREQUENCY_UNITS
from hesse.superconductivity.spectral_files import read_alpha2f
from hesse.superconductivity.spectral_function import SpectralFunction
from hesse.units import BOLTZMANN

__all__ = ["TcResult", "TcRow", "tc"]

MAX_MU_STAR: Final = 0.4
"""A larger μ*, rescaled to ten times the phonon frequencies, has no finite value."""
HIGHEST_PHONON: Final = 0.6
"""eV; the vibration of H2, the highest of all, has 0.55."""
LARGE_COUPLING: Final = 10.0
"""No crystal that is known has a larger λ."""
CUTOFFS: Final = (5.0, 10.0, 20.0)
"""Highest Matsubara frequencies in units of the highest phonon frequency, whose results show the convergence."""


@dataclass(frozen=True)
class TcRow:
    """Critical temperatures for one μ*, K.

    Attributes:
        mu_star: Coulomb pseudopotential.
        mcmillan: by McMillan's formula.
        allen_dynes: by the formula of Allen and Dynes.
        eliashberg: by the isotropic Eliashberg equations; None if it is below `TcResult.lowest_temperature`.
        eliashberg_uncertainty: change of `eliashberg` between the two largest cutoffs.
        f1, f2: factors of Allen and Dynes.
    """

    mu_star: float
    mcmillan: float
    allen_dynes: float
    eliashberg: float | None
    eliashberg_uncertainty: float | None
    f1: float
    f2: float


@dataclass(frozen=True, eq=False, repr=False)
class TcResult(ShortRepr):
    """Moments of α²F and the critical temperatures that follow from it.

    Attributes:
        spectrum: α²F.
        rows: one for each μ*.
        mu_star_at: the frequency at which μ* of the Eliashberg equations is defined, eV; None: the highest Matsubara
            frequency.
        lowest_temperature: temperature below which the Eliashberg equations are not solved, K.
    """

    spectrum: SpectralFunction
    rows: tuple[TcRow, ...]
    mu_star_at: float | None
    lowest_temperature: float

    def to_dicts(self) -> list[dict[str, Any]]:
        """The result as plain values.

        Returns:
            For each μ*: λ, ω_log and ω₂ (K), and the critical temperatures (K).
        """
        moments = {
            "lambda": self.spectrum.coupling,
            "omega_log": self.spectrum.omega_log / BOLTZMANN,
            "omega_2": self.spectrum.omega_2 / BOLTZMANN,
        }
        names = {"mcmillan": "tc_mcmillan", "allen_dynes": "tc_allen_dynes", "eliashberg": "tc_eliashberg",
                 "eliashberg_uncertainty": "tc_eliashberg_uncertainty"}  # fmt: skip
        return [moments | {names.get(key, key): value for key, value in asdict(row).items()} for row in self.rows]

    def summary(self) -> str:
        """The result as text.

        Returns:
            Moments, and a line for each μ*.
        """
        s = self.spectrum
        lines = [
            f"λ {s.coupling:.4f}   ω_log {1e3 * s.omega_log:.2f} meV ({s.omega_log / BOLTZMANN:.1f} K)   "
            f"ω₂ {1e3 * s.omega_2:.2f} meV   highest {1e3 * s.highest_frequency:.1f} meV",
            "  μ*     McMillan   Allen-Dynes   Eliashberg   T_c, K",
        ]
        for row in self.rows:
            last = f"{row.eliashberg:10.3f}" if row.eliashberg is not None else f"   < {self.lowest_temperature:.2g}"
            lines.append(f"{row.mu_star:6.3f} {row.mcmillan:10.3f} {row.allen_dynes:12.3f}   {last}")
        return "\n".join(lines)


def tc(
    spectrum: SpectralFunction | str | Path | tuple[ArrayLike, ArrayLike],
    mu_star: float | Sequence[float] = 0.1,
    *,
    unit: str | None = None,
    column: int | None = None,
    allow_negative: bool = False,
    mu_star_at: float | str = "phonons",
) -> TcResult:
    """Critical temperatures of a superconductor from its α²F.

    Args:
        spectrum: α²F, a file of it (see `read_alpha2f`), or two arrays `(frequencies, alpha2f)` of its curve.
        mu_star: Coulomb pseudopotential μ*, or several.
        unit: unit of the frequencies of a plain file or of arrays: eV, meV, Ry, Ha, THz, cm-1 or K.
        column: column of α²F of a file with several.
        allow_negative: compute with a file whose α²F is negative beyond noise.
        mu_star_at: where μ* of the Eliashberg equations is defined. "phonons": at the highest phonon frequency, and
            rescaled to the cutoff, the convention of Allen and Dynes, in which T_c converges with the cutoff. "cutoff":
            at the highest Matsubara frequency, as programs do that take μ* as it is. A number: at this frequency, eV.

    Returns:
        Moments and critical temperatures. A `HarmonicWarning` tells of phonons above 0.6 eV and of λ above 10, which a
        wrong unit makes.

    Raises:
        FileFormatError: a file that cannot be read.
        UnitError: a unit that is missing or unknown.
        RequestError: α²F or μ* that are impossible.
    """
    spectrum = _as_spectrum(spectrum, unit, column, allow_negative)
    values = [float(mu_star)] if isinstance(mu_star, int | float) else [float(value) for value in mu_star]
    for value in values:
        if not 0 <= value <= MAX_MU_STAR:
            raise RequestError(f"expected μ* from 0 to {MAX_MU_STAR} (0.1 to 0.16 is usual), got {value:g}")
    at = _reference_frequency(spectrum, mu_star_at)
    for text in _doubts(spectrum):
        warnings.warn(text, HarmonicWarning, stacklevel=2)
    highest = spectrum.highest_frequency
    rows = []
    for value in values:
        usable: list[float] = []
        for cutoff in (factor * highest for factor in CUTOFFS):
            guess = usable[-1] if usable else None
            critical = eliashberg_tc(spectrum, value, cutoff=cutoff, mu_star_at=at or cutoff, guess=guess)
            if critical is None:
                break
            usable.append(critical)
        first, second = strong_coupling_factors(spectrum.coupling, value, spectrum.omega_2 / spectrum.omega_log)
        rows.append(
            TcRow(
                mu_star=value,
                mcmillan=mcmillan_tc(spectrum.coupling, spectrum.omega_log, value) / BOLTZMANN,
                allen_dynes=allen_dynes_tc(spectrum.coupling, spectrum.omega_log, spectrum.omega_2, value) / BOLTZMANN,
                eliashberg=usable[-1] if usable else None,
                eliashberg_uncertainty=abs(usable[-1] - usable[-2]) if len(usable) > 1 else None,
                f1=first,
                f2=second,
            )
        )
    return TcResult(spectrum, tuple(rows), at, lowest_temperature(CUTOFFS[0] * highest))


def _as_spectrum(spectrum: object, unit: str | None, column: int | None, allow_negative: bool) -> SpectralFunction:
    if isinstance(spectrum, str | Path):
        return read_alpha2f(spectrum, unit=unit, column=column, allow_negative=allow_negative)
    if isinstance(spectrum, SpectralFunction):
        if unit is not None or column is not None:
            raise RequestError(
                "unit and column belong to files; this is a SpectralFunction, whose frequencies are in eV"
            )
        return spectrum
    if not (isinstance(spectrum, tuple | list | np.ndarray) and len(spectrum) == 2):
        raise RequestError(
            "expected α²F as the path of a file, as two arrays (frequencies, alpha2f) with their unit, or as a "
            f"SpectralFunction (SpectralFunction.from_grid for a curve); got {type(spectrum).__name__}"
        )
    if column is not None:
        raise RequestError("column belongs to files; these are arrays: give the α²F that is meant")
    if unit is None:
        raise UnitError(
            f"arrays do not say in which unit the frequencies are: add unit= ({', '.join(FREQUENCY_UNITS)})"
        )
    return SpectralFunction.from_grid(*spectrum, unit=unit, allow_negative=allow_negative)


def _doubts(spectrum: SpectralFunction) -> list[str]:
    """Warn of numbers as a wrong unit, or values in place of strengths, would give."""
    highest, result = spectrum.highest_frequency, []
    if highest > HIGHEST_PHONON:
        result.append(
            f"the highest frequency of α²F is {1e3 * highest:.0f} meV: no phonon is above {1e3 * HIGHEST_PHONON:.0f} "
            "meV. Is the unit of the frequencies right?"
        )
    if spectrum.coupling > LARGE_COUPLING:
        result.append(
            f"λ = {spectrum.coupling:.4g} is larger than that of any crystal that is known. Is this α²F? (In Python "
            "SpectralFunction.from_grid takes its curve, SpectralFunction itself the integrals around each frequency.)"
        )
    return result


def _reference_frequency(spectrum: SpectralFunction, mu_star_at: float | str) -> float | None:
    if mu_star_at == "phonons":
        return spectrum.highest_frequency
    if mu_star_at == "cutoff":
        return None
    if isinstance(mu_star_at, int | float) and mu_star_at > 0:
        return float(mu_star_at)
    raise RequestError(f'mu_star_at: expected "phonons", "cutoff" or a frequency in eV, got {mu_star_at!r}')
