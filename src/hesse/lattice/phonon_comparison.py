"""Differences between the phonons of two levels of theory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.symbols import Symbols
from numpy.typing import ArrayLike

from hesse.errors import RequestError
from hesse.lattice.phonons_result import DEFAULT_MESH, MeshLike, Phonons
from hesse.lattice.thermal import ThermalProperties
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure

__all__ = ["PhononComparison", "check_same_crystal", "check_same_primitive", "compare_phonons"]

_MAX_STRAIN = 0.25
"""Largest relative difference between the metrics of two primitive cells that count as the same crystal."""


@dataclass(frozen=True, eq=False, repr=False)
class PhononComparison(ShortRepr):
    """Phonons against a reference; modes of a wave vector are compared in order of their frequency.

    Attributes:
        rms: root mean square difference of the frequencies on a mesh, THz.
        mae: mean absolute difference, THz.
        largest: largest difference, THz.
        max_frequency: highest frequency on the mesh, THz.
        max_frequency_reference: that of the reference.
        thermal: thermodynamic functions.
        thermal_reference: those of the reference.
    """

    rms: float
    mae: float
    largest: float
    max_frequency: float
    max_frequency_reference: float
    thermal: ThermalProperties
    thermal_reference: ThermalProperties

    def row(self) -> dict[str, float | list[float]]:
        """The numbers as a row.

        Returns:
            Differences of frequencies (THz), and of thermodynamic functions (eV, eV/K) at each temperature.
        """
        a, b = self.thermal, self.thermal_reference
        return {
            "frequency_rms": self.rms,
            "frequency_mae": self.mae,
            "frequency_largest": self.largest,
            "max_frequency_error": self.max_frequency - self.max_frequency_reference,
            "zpe_error": a.zpe - b.zpe,
            "free_energy_error": (a.free_energy - b.free_energy).tolist(),
            "entropy_error": (a.entropy - b.entropy).tolist(),
            "heat_capacity_error": (a.heat_capacity - b.heat_capacity).tolist(),
        }


def check_same_crystal(phonons: Phonons, reference: Phonons) -> None:
    """Check that two phonons belong to the same primitive cell, up to a strain.

    Args:
        phonons: some phonons.
        reference: others.

    Raises:
        RequestError: other elements, another number of atoms, or other lattice vectors.
    """
    check_same_primitive(phonons.primitive, reference.primitive)


def check_same_primitive(a: Structure, b: Structure) -> None:
    """Check that a primitive cell is that of a reference, up to a strain.

    Args:
        a: the primitive cell.
        b: that of the reference.

    Raises:
        RequestError: other elements, another number of atoms, or other lattice vectors.
    """
    if sorted(a.numbers) != sorted(b.numbers):
        formulas = [Symbols(cell.numbers).get_chemical_formula("metal") for cell in (b, a)]
        raise RequestError(
            f"the reference is of another crystal: its primitive cell has {formulas[0]}, not {formulas[1]}"
        )
    metric_a, metric_b = a.cell @ a.cell.T, b.cell @ b.cell.T
    if not np.allclose(metric_a, metric_b, atol=_MAX_STRAIN * float(np.trace(metric_a)) / 3.0):
        raise RequestError(
            "the primitive cell of the reference has other lattice vectors, in which wave vectors mean something else "
            f"({np.round(b.cell, 2).tolist()}, not {np.round(a.cell, 2).tolist()}): compute the phonons with the cell "
            "of the reference"
        )


def compare_phonons(
    phonons: Phonons, reference: Phonons, *, temperatures: ArrayLike = 300.0, mesh: MeshLike = DEFAULT_MESH
) -> PhononComparison:
    """Compare phonons with a reference, at the same wave vectors of a mesh.

    Args:
        phonons: the phonons.
        reference: those to compare with.
        temperatures: K, of the thermodynamic functions.
        mesh: see `Phonons.mesh`.

    Returns:
        The differences.

    Raises:
        RequestError: a reference of another crystal.
        ConfigError: a mesh or temperatures that are none.
    """
    check_same_crystal(phonons, reference)
    q, weights, values = reference.mesh(mesh)
    own = phonons.frequencies(q)
    difference = np.abs(own - values)
    share = (weights / weights.sum())[:, None] / values.shape[1]
    return PhononComparison(
        float(np.sqrt((share * difference**2).sum())),
        float((share * difference).sum()),
        float(difference.max()),
        float(own.max()),
        float(values.max()),
        phonons.thermal(temperatures, mesh),
        reference.thermal(temperatures, mesh),
    )
