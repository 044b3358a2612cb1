"""Enthalpies, entropies and Gibbs energies of one structure at one or several temperatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.runtime.short_repr import ShortRepr
from hesse.units import BOLTZMANN, KCAL_PER_MOL

__all__ = ["Thermochemistry"]


@dataclass(frozen=True, eq=False, repr=False)
class Thermochemistry(ShortRepr):
    """Thermochemistry of one structure. Energies are in eV, entropies in eV/K; arrays are over the temperatures.

    Attributes:
        id: id of the structure.
        temperature: K.
        pressure: Pa; None for structures that only vibrate (crystals, frozen atoms).
        method: method of the entropy of vibrations.
        enthalpy_method: method of their energy.
        zpe: zero-point energy (harmonic, of the scaled frequencies), eV.
        energy: electronic energy, eV; None if it is not known.
        energies: thermal energies by kind of motion: translation, rotation, vibration (with the zero-point energy), eV.
        entropies: entropies by kind of motion, and electronic, eV/K.
        heat_capacity: eV/K; at constant pressure for a gas.
        symmetry_number: rotational symmetry number; None for structures that only vibrate.
        degeneracy: degeneracy of the electronic state.
        n_imaginary: number of imaginary modes, which are left out.
        errors: standard errors of zpe, energy (and enthalpy), entropy and gibbs that follow from the estimated error of
            the Hessian; empty if it is not known.
    """

    id: str
    temperature: Float[Array, "temperatures"]
    pressure: Float[Array, "temperatures"] | None
    method: str
    enthalpy_method: str
    zpe: float
    energy: float | None
    energies: Mapping[str, Float[Array, "temperatures"]]
    entropies: Mapping[str, Float[Array, "temperatures"]]
    heat_capacity: Float[Array, "temperatures"]
    symmetry_number: int | None
    degeneracy: int
    n_imaginary: int = 0
    errors: Mapping[str, Float[Array, "temperatures"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.temperature)

    def __str__(self) -> str:
        return self.table()

    @property
    def entropy(self) -> Float[Array, "temperatures"]:
        """Total entropy, eV/K."""
        return np.sum(list(self.entropies.values()), axis=0)

    @property
    def enthalpy_correction(self) -> Float[Array, "temperatures"]:
        """Enthalpy minus electronic energy, eV: zero-point energy, thermal energies and, for a gas, kT."""
        volume_work = 0.0 if self.pressure is None else BOLTZMANN * self.temperature
        result: Float[Array, "temperatures"] = np.sum(list(self.energies.values()), axis=0) + volume_work
        return result

    @property
    def gibbs_correction(self) -> Float[Array, "temperatures"]:
        """Gibbs energy minus electronic energy, eV (the Helmholtz energy for structures that only vibrate)."""
        return self.enthalpy_correction - self.temperature * self.entropy

    @property
    def enthalpy(self) -> Float[Array, "temperatures"] | None:
        """Electronic energy plus `enthalpy_correction`, eV; None if the energy is not known."""
        return None if self.energy is None else self.energy + self.enthalpy_correction

    @property
    def gibbs(self) -> Float[Array, "temperatures"] | None:
        """Electronic energy plus `gibbs_correction`, eV; None if the energy is not known."""
        return None if self.energy is None else self.energy + self.gibbs_correction

    def _error(self, name: str, index: int) -> float | None:
        return float(self.errors[name][index]) if name in self.errors else None

    def rows(self) -> list[dict[str, Any]]:
        """The numbers as JSON values, as `hesse thermo --json` writes them.

        Returns:
            One object per temperature. Totals are null if the electronic energy is not known, errors if they are not.
        """
        totals = {"enthalpy": self.enthalpy, "gibbs": self.gibbs}
        return [
            {
                "id": self.id,
                "temperature": float(self.temperature[k]),
                "pressure": None if self.pressure is None else float(self.pressure[k]),
                "method": self.method,
                "zpe": self.zpe,
                **{name: None if total is None else float(total[k]) for name, total in totals.items()},
                "entropy": float(self.entropy[k]),
                "energy": self.energy,
                "enthalpy_method": self.enthalpy_method,
                "enthalpy_correction": float(self.enthalpy_correction[k]),
                "gibbs_correction": float(self.gibbs_correction[k]),
                "heat_capacity": float(self.heat_capacity[k]),
                "symmetry_number": self.symmetry_number,
                "degeneracy": self.degeneracy,
                "n_imaginary": self.n_imaginary,
                "zpe_error": self._error("zpe", k),
                "enthalpy_error": self._error("energy", k),
                "entropy_error": self._error("entropy", k),
                "gibbs_error": self._error("gibbs", k),
                "reason": "",
            }
            for k in range(len(self))
        ]

    def table(self) -> str:
        """Format the numbers as a text table.

        Returns:
            One line per temperature: corrections in kcal/mol, entropy in cal/(mol K), totals in eV.
        """
        gas = "vibrations only" if self.pressure is None else f"{self.pressure[0]:g} Pa"
        symmetry = "" if self.symmetry_number is None else f", symmetry number {self.symmetry_number}"
        lines = [
            f"{self.id}: {gas}{symmetry}, degeneracy {self.degeneracy}, entropy {self.method}, "
            f"enthalpy {self.enthalpy_method}",
            "       K   H−E kcal/mol   S cal/mol/K   G−E kcal/mol" + ("" if self.gibbs is None else "          G eV"),
        ]
        enthalpies, gibbs = self.enthalpy_correction / KCAL_PER_MOL, self.gibbs_correction / KCAL_PER_MOL
        entropies, total = 1000.0 * self.entropy / KCAL_PER_MOL, self.gibbs
        for k, temperature in enumerate(self.temperature):
            line = f"{temperature:8.2f}   {enthalpies[k]:12.3f}   {entropies[k]:11.3f}   {gibbs[k]:12.3f}"
            error = self.errors["gibbs"][k] / KCAL_PER_MOL if "gibbs" in self.errors else 0.0
            line += f" ± {error:.3f}" if error >= 5e-4 else ""
            lines.append(line if total is None else f"{line}  {total[k]:14.6f}")
        lines.append(f"zero-point energy {self.zpe / KCAL_PER_MOL:.3f} kcal/mol ({self.zpe:.5f} eV)")
        if self.n_imaginary:
            modes = "1 imaginary mode is" if self.n_imaginary == 1 else f"{self.n_imaginary} imaginary modes are"
            lines.append(f"{modes} left out")
        return "\n".join(lines)
