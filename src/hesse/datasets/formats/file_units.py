"""Units of files that are not in eV and Å: stated by the user, by the file, or by the convention of its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from hesse.datasets.transforms import convert_units
from hesse.errors import RequestError, UnitError
from hesse.structures import Properties, Structure
from hesse.units import ENERGY_UNITS, energy_unit, length_unit

__all__ = ["FileUnits", "check_file_units", "check_total_energies"]

_FORCES: Final = ("forces", "forces_error")
_CURVATURE: Final = ("hvp", "hvp_error", "hessian", "hessian_error")


@dataclass(frozen=True, kw_only=True)
class FileUnits:
    """Units of a file.

    Attributes:
        energy: name of the energy unit, one of `hesse.units.ENERGY_UNITS`.
        length: name of the length unit, one of `hesse.units.LENGTH_UNITS`.
        forces: unit of forces as `ENERGY/LENGTH`; by default made of the two units above.
        curvature: unit of Hessians and Hessian-vector products as `ENERGY/LENGTH^2`; by default likewise.

    Raises:
        UnitError: an unknown unit, or one that is not written in this form.
    """

    energy: str = "eV"
    length: str = "angstrom"
    forces: str | None = None
    curvature: str | None = None

    def __post_init__(self) -> None:
        energy_unit(self.energy)
        length_unit(self.length)
        self._factors()

    def __str__(self) -> str:
        forces = self.forces or f"{self.energy}/{self.length}"
        curvature = self.curvature or f"{self.energy}/{self.length}^2"
        return f"{self.energy}, {self.length}, {forces}, {curvature}"

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
            The same labels with forces in eV/Å and curvature in eV/Å².
        """
        forces, curvature = self._factors()
        changed: dict[str, Tensor] = {}
        for names, factor in ((_FORCES, forces), (_CURVATURE, curvature)):
            for name in names:
                value = getattr(labels, name)
                if value is not None and factor != 1.0:
                    changed[name] = value * factor
        return labels.replace(**changed) if changed else labels

    def _factors(self) -> tuple[float, float]:
        e, a = energy_unit(self.energy), length_unit(self.length)
        forces = 1.0 if self.forces is None else _derivative_unit(self.forces, 1) / (e / a)
        curvature = 1.0 if self.curvature is None else _derivative_unit(self.curvature, 2) / (e / a**2)
        return forces, curvature


def _derivative_unit(text: str, power: int) -> float:
    """Value of a unit such as `"hartree/bohr^2"` (`power` 2) in eV/Å²."""
    energy, slash, length = text.strip().rpartition("/")
    exponents = ("",) if power == 1 else ("^2", "**2", "²")
    exponent = next((t for t in exponents if length.endswith(t)), None)
    if not slash or exponent is None:
        example = "hartree/bohr" if power == 1 else "hartree/bohr^2"
        raise UnitError(f'expected ENERGY/LENGTH{exponents[0]}, for example {example}, got "{text}"')
    return energy_unit(energy) / length_unit(length.removesuffix(exponent)) ** power


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
