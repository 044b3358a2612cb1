"""Normal modes in Molden's format, which Molden, Jmol, Avogadro, IQmol and others animate."""

from __future__ import annotations

from ase.units import Bohr

from hesse.harmonic.normal_modes import NormalModes
from hesse.structures import Structure, species_names

__all__ = ["molden_text"]


def molden_text(structure: Structure, modes: NormalModes) -> str:
    """Format normal modes for Molden.

    Args:
        structure: the geometry.
        modes: its normal modes.

    Returns:
        The text of the file. Coordinates and Cartesian displacements (of length 1) are in bohr, as the format demands;
        imaginary frequencies are negative.
    """
    symbols = species_names(structure.numbers)
    bohr = structure.positions / Bohr
    lines = ["[Molden Format]", "[Title]", f" {structure.id}", "[Atoms] AU"]
    for k, (symbol, z, r) in enumerate(zip(symbols, structure.numbers, bohr, strict=True), 1):
        lines.append(f"{symbol:2s} {k:5d} {z:3d} {r[0]:18.10f} {r[1]:18.10f} {r[2]:18.10f}")
    lines += ["[FREQ]", *(f"{nu:14.6f}" for nu in modes.frequencies), "[FR-COORD]"]
    lines += [f"{s:2s} {r[0]:18.10f} {r[1]:18.10f} {r[2]:18.10f}" for s, r in zip(symbols, bohr, strict=True)]
    lines.append("[FR-NORM-COORD]")
    for k, mode in enumerate(modes.unit_displacements, 1):
        lines += [f"vibration {k:5d}", *(f"{d[0]:14.8f} {d[1]:14.8f} {d[2]:14.8f}" for d in mode)]
    return "\n".join(lines) + "\n"
