"""Units of files that are not in eV and Å: stated by the user, by the file, or by the convention of its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.units import GPa as _GPA
from torch import Tensor

from hesse.datasets.transforms import convert_units
from hesse.errors import RequestError, UnitError
from hesse.structures import Properties, Structure
from hesse.units import ENERGY_UNITS, energy_unit, length_unit

__all__ = ["FileUnits", "check_file_units", "check_total_energies"]

_FORCES: Final = ("forces", "forces_error")
_CURVATURE: Final = ("hvp", "hvp_error", "hessian", "hessian_error")
_STRESS: Final = ("stress", "stress_error")
_PRESSURES: Final = {"pa": 1e-9, "mpa": 1e-3, "gpa": 1.0, "bar": 1e-4, "kbar": 0.1, "kb": 0.1}
"""Units of pressure by lower-case name, in GPa."""
_ENERGY_NAMES: Final = {
    **dict.fromkeys(("ha", "eh", "hartrees", "au", "a.u.", "atomic_unit", "atomic_units"), "hartree"),
    **dict.fromkeys(("ry", "ryd", "rydbergs"), "rydberg"),
    **dict.fromkeys(("electronvolt", "electron_volt"), "eV"),
    "millielectronvolt": "meV",
    **dict.fromkeys(("kcal/mole", "kcal mol-1", "kcal_mol", "kcalmol"), "kcal/mol"),
    **dict.fromkeys(("kj/mole", "kj mol-1", "kj_mol", "kjmol"), "kJ/mol"),
}
_LENGTH_NAMES: Final = {
    **dict.fromkeys(("a", "ang", "ang.", "angstroms", "\u212b", "\u00c5"), "angstrom"),
    **dict.fromkeys(("a0", "au", "a.u.", "atomic_unit", "atomic_units", "bohrs"), "bohr"),
    "nanometer": "nm",
}


@dataclass(frozen=True, kw_only=True)
class FileUnits:
    """Units of a file.

    Attributes:
        energy: name of the energy unit, one of `hesse.units.ENERGY_UNITS`.
        length: name of the length unit, one of `hesse.units.LENGTH_UNITS`.
        forces: unit of forces as `ENERGY/LENGTH`; by default made of the two units above.
        curvature: unit of Hessians and Hessian-vector products as `ENERGY/LENGTH^2`; by default likewise.
        stress: unit of the stress as `ENERGY/LENGTH^3`, or one of pressure (`GPa`, `kbar`); by default likewise.

    Raises:
        UnitError: an unknown unit, or one that is not written in this form.
    """

    energy: str = "eV"
    length: str = "angstrom"
    forces: str | None = None
    curvature: str | None = None
    stress: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "energy", _usual_name(self.energy, _ENERGY_NAMES))
        object.__setattr__(self, "length", _usual_name(self.length, _LENGTH_NAMES))
        energy_unit(self.energy)
        length_unit(self.length)
        self._factors()

    def __str__(self) -> str:
        forces = self.forces or f"{self.energy}/{self.length}"
        curvature = self.curvature or f"{self.energy}/{self.length}^2"
        stress = f", {self.stress}" if self.stress else ""
        return f"{self.energy}, {self.length}, {forces}, {curvature}{stress}"

    def value(self, quantity: str) -> float:
        """Value of a unit.

        Args:
            quantity: "energy", "length", "forces", "curvature" or "stress".

        Returns:
            The unit in eV, Å, eV/Å, eV/Å² or eV/Å³.
        """
        e, a = energy_unit(self.energy), length_unit(self.length)
        forces, curvature, stress = self._factors()
        return {
            "energy": e,
            "length": a,
            "forces": forces * e / a,
            "curvature": curvature * e / a**2,
            "stress": stress * e / a**3,
        }[quantity]

    def to_internal(
        self, structures: Sequence[Structure], labels: Properties
    ) -> tuple[tuple[Structure, ...], Properties]:
        """Convert what was read from the file to the units used inside Hesse.

        Args:
            structures: positions and cells in the units of the file.
            labels: their labels in the units of the file.

        Returns:
            Structures in Å, and labels in eV, eV/Å and eV/Å².
        """
        converted, labels = convert_units(structures, labels, energy=self.energy, length=self.length)
        return converted, self.rescale(labels)

    def rescale(self, labels: Properties) -> Properties:
        """Correct labels that were converted with the energy and length units only.

        Needed if forces or curvature have their own units; otherwise the labels come back unchanged.

        Args:
            labels: labels after conversion with `energy` and `length`.

        Returns:
            The same labels with forces in eV/Å, curvature in eV/Å² and stress in eV/Å³.
        """
        forces, curvature, stress = self._factors()
        changed: dict[str, Tensor] = {}
        for names, factor in ((_FORCES, forces), (_CURVATURE, curvature), (_STRESS, stress)):
            for name in names:
                value = getattr(labels, name, None)
                if value is not None and factor != 1.0:
                    changed[name] = value * factor
        return labels.replace(**changed) if changed else labels

    def _factors(self) -> tuple[float, float, float]:
        e, a = energy_unit(self.energy), length_unit(self.length)
        forces = 1.0 if self.forces is None else _derivative_unit(self.forces, 1) / (e / a)
        curvature = 1.0 if self.curvature is None else _derivative_unit(self.curvature, 2) / (e / a**2)
        stress = 1.0 if self.stress is None else _stress_unit(self.stress) / (e / a**3)
        return forces, curvature, stress


def _usual_name(name: str, names: Mapping[str, str]) -> str:
    return names.get(name.strip().lower(), name) if isinstance(name, str) else name


def _stress_unit(text: str) -> float:
    """Value of a unit of stress in eV/Å³."""
    pressure = _PRESSURES.get(text.strip().lower())
    return _derivative_unit(text, 3) if pressure is None else pressure * _GPA


def _derivative_unit(text: str, power: int) -> float:
    """Value of a unit such as `"hartree/bohr^2"` (`power` 2) in eV/Å²."""
    example = ("hartree/bohr", "hartree/bohr^2", "eV/angstrom^3, GPa or kbar")[power - 1]
    if text.strip().lower() in ("au", "a.u.", "atomic_unit", "atomic_units"):
        text = f"hartree/bohr^{power}"
    energy, slash, length = text.strip().rpartition("/")
    exponents = (f"^{power}", f"**{power}", "¹²³"[power - 1], str(power), *(("",) if power == 1 else ()))
    exponent = next((t for t in exponents if length.endswith(t)), None)
    if not slash or exponent is None:
        form = "" if power == 1 else f"^{power}"
        raise UnitError(f'expected ENERGY/LENGTH{form}, for example {example}, got "{text}"')
    e, a = _usual_name(energy, _ENERGY_NAMES), _usual_name(length.removesuffix(exponent), _LENGTH_NAMES)
    return energy_unit(e) / length_unit(a) ** power


def check_file_units(units: object) -> None:
    """Raise RequestError unless the argument `units` of a reader is a `FileUnits` or None.

    Args:
        units: the argument.

    Raises:
        RequestError: the argument is of another type.
    """
    if units is not None and not isinstance(units, FileUnits):
        raise RequestError(
            'units: expected a FileUnits, such as FileUnits(energy="hartree", length="bohr"), or None, got '
            f"{type(units).__name__}"
        )


def check_total_energies(source: object, structures: Sequence[Structure], energies: Tensor, unit: str) -> None:
    """Recognize total energies that are in another unit than the convention of the format.

    An all-electron calculation of a neutral atom gives about -½ Z^2.41 Hartree (within 1 % up to krypton; bonds change
    it by less), so that the unit of a total energy shows in its size. Energies relative to another zero (atomization
    energies, for example) match no unit and pass.

    Args:
        source: file, named in the message.
        structures: the structures, for their atomic numbers.
        energies: energies as read from the file, `[structures]`; NaN where there is none.
        unit: energy unit that the format implies.

    Raises:
        UnitError: the energies are within 3 % of what is expected in another unit.
    """
    expected = np.array([-0.5 * (s.numbers.astype(float) ** 2.41).sum() for s in structures])
    ratios = energies.numpy() / expected
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return
    typical = float(np.median(ratios))
    for name, value in ENERGY_UNITS.items():
        per_hartree = ENERGY_UNITS["hartree"] / value
        if abs(typical / per_hartree - 1.0) < 0.03 and value != energy_unit(unit):
            raise UnitError(
                f"{source}: files of this kind are taken to be in {unit}, but the energies are total energies in "
                f"{name}. State the units: `--energy-unit {name} --length-unit angstrom`."
            )
