"""The electron-phonon spectral function α²F(ω) of Eliashberg and its moments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import RequestError
from hesse.runtime.short_repr import ShortRepr
from hesse.superconductivity.frequency_units import check_same_scale, frequency_unit
from hesse.units import BOLTZMANN

__all__ = ["SpectralFunction"]

NEGATIVE_SHARE: Final = 0.05
"""Negative part of λ that is accepted: interpolation between q points leaves such values at low frequencies."""


@dataclass(frozen=True, eq=False, repr=False)
class SpectralFunction(ShortRepr):
    """α²F(ω), as frequencies with the integral of α²F around each of them.

    A curve of α²F becomes one by `SpectralFunction.from_grid(frequencies, values, unit="meV")`, phonons with couplings
    by `from_modes`: `strengths` are integrals and not values of the curve. A function on a grid has the weights of the
    trapezoidal rule in them; single modes are peaks without width.

    Attributes:
        frequencies: phonon energies ħω above zero, eV, in ascending order.
        strengths: ∫α²F dω around each frequency, eV: not α²F itself, see `from_grid`.
        notes: what a reader has to know about these numbers.
    """

    frequencies: Float[Array, " n"]
    strengths: Float[Array, " n"]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        w, s = self.frequencies, self.strengths
        if w.ndim != 1 or w.shape != s.shape or len(w) == 0:
            raise RequestError(
                f"expected as many strengths as frequencies, got arrays {w.shape} and {s.shape}. A curve of α²F: "
                "SpectralFunction.from_grid"
            )
        if not (np.isfinite(w).all() and np.isfinite(s).all()):
            raise RequestError("expected finite frequencies and strengths of α²F, some are not")
        if w[0] <= 0 or (np.diff(w) < 0).any():
            raise RequestError("expected frequencies of α²F above zero, in ascending order")
        if s @ (1 / w) <= 0:
            raise RequestError("expected α²F that is not negative and not zero everywhere: its λ is not above zero")

    @classmethod
    def from_grid(
        cls, frequencies: ArrayLike, values: ArrayLike, *, unit: str = "eV", allow_negative: bool = False
    ) -> SpectralFunction:
        """α²F from its values on a grid: the curve that is drawn in pictures.

        Args:
            frequencies: phonon frequencies in ascending order; those not above zero are left out.
            values: α²F there, without unit. Few small negative values, which interpolation leaves at low frequencies,
                are kept as they are; `notes` says how much of λ they are.
            unit: unit of the frequencies: eV (of ħω), meV, Ry, Ha, THz, cm-1 or K.
            allow_negative: also keep negative values that are not small.

        Returns:
            The spectral function.

        Raises:
            UnitError: an unknown unit.
            RequestError: fewer than two points, frequencies that do not ascend, weight at frequencies that are not
                above zero, or values that are negative beyond noise.
        """
        w, values = frequency_unit(unit) * np.asarray(frequencies, dtype=float), np.asarray(values, dtype=float)
        if w.ndim != 1 or w.shape != values.shape or len(w) < 2:
            raise RequestError(f"expected α²F at two or more frequencies, got arrays {w.shape} and {values.shape}")
        if not (np.isfinite(w).all() and np.isfinite(values).all()):
            raise RequestError("expected finite numbers in α²F, some are not")
        if (np.diff(w) <= 0).any():
            k = int(np.argmax(np.diff(w) <= 0))
            raise RequestError(f"frequencies of α²F have to ascend; after {w[k]:g} eV comes {w[k + 1]:g} eV")
        positive = w > 0
        if np.abs(values[~positive]).max(initial=0) > 0.01 * np.abs(values).max():
            raise RequestError(
                "α²F has weight at frequencies that are not above zero: imaginary modes. λ and T_c are defined for a "
                "stable crystal only; use frequencies renormalized by anharmonicity"
            )
        strengths = (values * _trapezoid_widths(w))[positive]
        w = w[positive]
        if not len(w):
            raise RequestError("expected α²F at frequencies above zero, there are none")
        parts = [float(np.maximum(sign * strengths, 0) @ (1 / w)) for sign in (1, -1)]
        share = parts[1] / max(parts[0] - parts[1], 1e-300)
        if share > NEGATIVE_SHARE and not allow_negative:
            size = f"{100 * share:.0f} % of λ" if share < 1 else "larger than λ, or λ is not above zero"
            raise RequestError(
                f"α²F cannot be negative, but negative values are {size}: was the interpolation "
                "between q points converged? Is this the right column? --allow-negative (allow_negative=True) computes "
                "with them"
            )
        notes = (f"negative values of α²F are {100 * share:.2g} % of λ",) if share > 1e-4 else ()
        return cls(w, strengths, notes)

    @classmethod
    def from_modes(
        cls, frequencies: ArrayLike, couplings: ArrayLike, weights: ArrayLike | None = None, *, unit: str = "eV"
    ) -> SpectralFunction:
        """α²F from phonons and their couplings: ½ Σ_qν w_q λ_qν ω_qν δ(ω − ω_qν), with weights of sum one.

        Args:
            frequencies: of the phonons, [q points, modes].
            couplings: λ_qν, [q points, modes].
            weights: of the q points, in any scale; default: equal.
            unit: unit of the frequencies: eV (of ħω), meV, Ry, Ha, THz, cm-1 or K.

        Returns:
            The spectral function, a sum of peaks.

        Raises:
            RequestError: arrays that do not fit, negative couplings, or a mode with a coupling whose frequency is not
                above zero.
            UnitError: an unknown unit.
        """
        w = frequency_unit(unit) * np.asarray(frequencies, dtype=float)
        couplings = np.asarray(couplings, dtype=float)
        if w.ndim != 2 or w.shape != couplings.shape:
            raise RequestError(
                f"expected frequencies and λ of shape [q points, modes], got {w.shape}, {couplings.shape}"
            )
        q = np.ones(len(w)) if weights is None else np.asarray(weights, dtype=float)
        if q.shape != (len(w),) or (q < 0).any() or q.sum() <= 0:
            raise RequestError(f"expected {len(w)} weights of q points, not negative, got {weights!r}")
        if (couplings < 0).any():
            raise RequestError(f"couplings λ cannot be negative, the lowest is {couplings.min():g}")
        coupled = couplings * q[:, None] > 0
        if (w[coupled] <= 0).any():
            raise RequestError(
                f"{int((w[coupled] <= 0).sum())} of {int(coupled.sum())} modes with a coupling have no frequency above "
                "zero (imaginary modes): λ is defined for a stable crystal only; give renormalized frequencies"
            )
        strengths = 0.5 * (q / q.sum())[:, None] * couplings * w
        order = np.argsort(w[coupled], kind="stable")
        return cls(w[coupled][order], strengths[coupled][order])

    @classmethod
    def einstein(cls, frequency: float, coupling: float) -> SpectralFunction:
        """α²F of one phonon frequency: ½ λ ω_E δ(ω − ω_E).

        Args:
            frequency: ħω_E, eV.
            coupling: λ.

        Returns:
            The spectral function.
        """
        return cls(np.array([frequency]), np.array([0.5 * coupling * frequency]))

    @cached_property
    def coupling(self) -> float:
        """The coupling constant λ = 2 ∫ α²F/ω dω."""
        return float(2 * self.strengths @ (1 / self.frequencies))

    @cached_property
    def omega_log(self) -> float:
        """The logarithmic average frequency exp[(2/λ) ∫ ln ω α²F/ω dω], eV."""
        weights = 2 * self.strengths / self.frequencies / self.coupling
        return float(np.exp(weights @ np.log(self.frequencies)))

    @cached_property
    def omega_2(self) -> float:
        """The root of the mean squared frequency [(2/λ) ∫ ω α²F dω]^½, eV."""
        return float(np.sqrt(2 * self.strengths @ self.frequencies / self.coupling))

    @property
    def highest_frequency(self) -> float:
        """The highest frequency with a strength, eV."""
        return float(self.frequencies[self.strengths > 0][-1])

    def matsubara_couplings(self, temperature: float, n: int) -> Float[Array, " n"]:
        """Couplings λ(l) = 2 ∫ ω α²F / (ω² + (2π l k_B T)²) dω at differences of Matsubara frequencies.

        Args:
            temperature: K.
            n: how many, from l = 0.

        Returns:
            λ(0), ..., λ(n − 1); λ(0) is λ.
        """
        steps = (2 * np.pi * BOLTZMANN * temperature * np.arange(n)) ** 2
        result = np.empty(n)
        for start in range(0, n, 1024):
            block = steps[start : start + 1024]
            result[start : start + 1024] = (1 / (self.frequencies**2 + block[:, None])) @ (
                2 * self.strengths * self.frequencies
            )
        return result

    def cumulative_coupling(self, frequencies: ArrayLike) -> Float[Array, " n"]:
        """The part of λ that stems from phonons up to each frequency.

        Args:
            frequencies: eV.

        Returns:
            λ(ω) at these frequencies.
        """
        sums = np.concatenate([[0.0], np.cumsum(2 * self.strengths / self.frequencies)])
        return sums[np.searchsorted(self.frequencies, np.asarray(frequencies, dtype=float), side="right")]

    def broadened(self, frequencies: ArrayLike, width: float) -> Float[Array, " n"]:
        """α²F as a smooth curve, for pictures: every strength as a Gaussian.

        Args:
            frequencies: where, eV.
            width: standard deviation, eV.

        Returns:
            α²F there.
        """
        distance = (np.asarray(frequencies, dtype=float)[:, None] - self.frequencies) / width
        result: Float[Array, " n"] = np.exp(-0.5 * distance**2) @ self.strengths / (width * np.sqrt(2 * np.pi))
        return result

    def renormalized(
        self, before: ArrayLike, after: ArrayLike, weights: ArrayLike | None = None, *, unit: str = "eV"
    ) -> SpectralFunction:
        """α²F with the frequencies of another set of phonons, for instance renormalized by anharmonicity.

        Electron-phonon matrix elements of displacements and polarizations stay as they are. Then a phonon that moves
        from ω to Ω takes λ_qν (ω/Ω)² with it, and its part of ∫α²F dω becomes ω/Ω times as large. α²F does not say
        which phonon is which: the k-th lowest frequency before becomes the k-th lowest after.

        Args:
            before: frequencies of the phonons to which this α²F belongs, of any shape [q points, modes].
            after: frequencies on the same q points, of the same shape.
            weights: of the q points (or of all frequencies); default: equal.
            unit: unit of both: eV (of ħω), meV, Ry, Ha, THz, cm-1 or K; "THz" for those of `Phonons.frequencies`.

        Returns:
            The spectral function.

        Raises:
            RequestError: shapes that differ, frequencies that are not above zero, or a highest frequency that differs
                from that of this α²F by more than a factor of two: another unit, or other phonons.
            UnitError: an unknown unit.
        """
        size = frequency_unit(unit)
        old, new = (np.asarray(x, dtype=float) for x in (before, after))
        if old.shape != new.shape or old.size == 0:
            raise RequestError(
                f"expected frequencies of the same phonons before and after, got {old.shape}, {new.shape}"
            )
        q = np.ones(old.shape) if weights is None else np.asarray(weights, dtype=float)
        if q.ndim == 1 and old.ndim == 2 and len(q) == len(old):
            q = np.repeat(q[:, None], old.shape[1], axis=1)
        if q.shape != old.shape:
            raise RequestError(f"expected weights of the q points or of all frequencies {old.shape}, got {q.shape}")
        for values, when in ((old, "before"), (new, "after")):
            # Acoustic modes at q = 0 are zero within noise: they move with the others.
            if (values < -1e-4 * np.abs(values).max()).any():
                raise RequestError(
                    f"{int((values < 0).sum())} frequencies {when} are imaginary (negative): where a harmonic mode is "
                    "unstable, its coupling is not known from α²F"
                )
        check_same_scale(float(old.max()), unit, self.highest_frequency, "before", upper=float(self.frequencies[-1]))
        check_same_scale(float(new.max()), unit, size * float(old.max()), "after")
        old_sorted, new_sorted = _quantiles(size * old, q), _quantiles(size * new, q)
        keep = (old_sorted > 0) & (new_sorted > 0)
        ratios = np.interp(self.frequencies, old_sorted[keep], (new_sorted / np.maximum(old_sorted, 1e-300))[keep])
        moved = self.frequencies * ratios
        order = np.argsort(moved, kind="stable")
        return SpectralFunction(moved[order], (self.strengths / ratios)[order], self.notes)


def _trapezoid_widths(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """Weights of the trapezoidal rule."""
    steps = np.diff(x)
    return 0.5 * (np.append(steps, 0.0) + np.append(0.0, steps))


def _quantiles(values: Float[Array, "..."], weights: Float[Array, "..."], n: int = 2000) -> Float[Array, " n"]:
    """Frequencies below which equal shares of all phonons lie."""
    order = np.argsort(values, axis=None)
    sums = np.cumsum(weights.ravel()[order])
    shares = (sums - 0.5 * weights.ravel()[order]) / sums[-1]
    result: Float[Array, " n"] = np.interp(np.linspace(0, 1, max(n, values.size)), shares, values.ravel()[order])
    return result
