"""Frequencies, modes and thermochemistry as text with the lines that readers of Gaussian outputs search for.

GoodVibes, pyQRC, cclib and viewers read it. The first line says that Hesse wrote it and that no other program ran.
"""

from __future__ import annotations

import numpy as np
from ase.units import Hartree
from ase.units import _amu as atomic_mass
from ase.units import _hplanck as planck
from ase.units import _k as boltzmann

from hesse._version import __version__
from hesse.harmonic.normal_modes import NormalModes
from hesse.harmonic.symmetry_number import symmetry_number
from hesse.harmonic.thermochemistry import STANDARD_PRESSURE, ThermoSettings, moments_of_inertia, thermochemistry
from hesse.structures import Structure
from hesse.units import HBAR, INVERSE_CM

__all__ = ["gaussian_text"]

_PER_LINE = 3
_RULE = " " + 69 * "-"


def gaussian_text(structure: Structure, modes: NormalModes, *, energy: float | None = None, level: str = "") -> str:
    """Format normal modes like a frequency calculation of Gaussian.

    Args:
        structure: the geometry.
        modes: its normal modes.
        energy: eV; None leaves its line out.
        level: level of theory, named beside the energy.

    Returns:
        The text. Displacements are Cartesian, of length 1, with five decimals; thermochemistry is that of rigid rotor
        and harmonic oscillators at 298.15 K and 1 atm, for molecules of which all atoms move.
    """
    lines = [
        f" Written by Hesse {__version__} in the layout of an output of Gaussian (a program of Gaussian, Inc.),",
        " for programs that read such outputs. No calculation was done with that program.",
        "",
        f" Structure: {structure.id}",
        f" Level of theory: {level or 'not known'}",
        "",
        f" Charge = {structure.charge:2d} Multiplicity = {structure.multiplicity}",
        f" NAtoms= {len(structure):6d}",
        *_orientation(structure),
    ]
    if energy is not None:
        name = "".join(level.split()) or "unknown"
        lines.append(f" SCF Done:  E({name}) =  {energy / Hartree:.10f}     A.U. after    1 cycles")
    if len(modes):
        lines += ["", *_frequencies(structure, modes)]
    if not structure.periodic and modes.atoms is None:
        lines += ["", *_thermochemistry(structure, modes, energy)]
    return "\n".join([*lines, "", " Normal termination of Gaussian-like text written by Hesse.", ""])


def _orientation(structure: Structure) -> list[str]:
    lines = ["                         Standard orientation:", _RULE]
    lines += [
        " Center     Atomic      Atomic             Coordinates (Angstroms)",
        " Number     Number       Type             X           Y           Z",
        _RULE,
    ]
    for k, (z, r) in enumerate(zip(structure.numbers, structure.positions, strict=True), 1):
        lines.append(f"{k:7d} {z:10d} {0:11d}     {r[0]:14.8f} {r[1]:14.8f} {r[2]:14.8f}")
    return [*lines, _RULE]


def _frequencies(structure: Structure, modes: NormalModes) -> list[str]:
    lines = [
        " Harmonic frequencies (cm**-1), IR intensities (not calculated), reduced masses (AMU), force constants",
        " (mDyne/A), and normal coordinates:",
    ]
    masses = modes.reduced_masses
    # ω² in eV/(Å² u) times u; 1 eV/Å² is 0.16022 mDyne/Å.
    constants = masses * (modes.frequencies * INVERSE_CM / HBAR) ** 2 * 0.1602176634
    displacements = np.round(modes.unit_displacements, 5) + 0.0  # no minus before zero
    for start in range(0, len(modes), _PER_LINE):
        part = slice(start, min(start + _PER_LINE, len(modes)))
        indices = range(part.start, part.stop)
        lines.append(" " * 14 + "".join(f"{k + 1:30d}" for k in indices))
        lines.append(" " * 14 + "".join(f"{'A':>30s}" for _ in indices))
        for name, values in (
            ("Frequencies", modes.frequencies),
            ("Red. masses", masses),
            ("Frc consts ", constants),
            ("IR Inten   ", np.zeros(len(modes))),
        ):
            lines.append(f" {name} --" + "".join(f"{value:30.4f}" for value in values[part]))
        lines.append("  Atom  AN" + "".join(f"{'X':>10s}{'Y':>10s}{'Z':>10s}" for _ in indices))
        for a, z in enumerate(structure.numbers):
            numbers = "".join(f"{x:10.5f}" for mode in displacements[part] for x in mode[a])
            lines.append(f"{a + 1:6d}{z:4d}{numbers}")
    return lines


def _thermochemistry(structure: Structure, modes: NormalModes, energy: float | None) -> list[str]:
    numbers = thermochemistry(structure, modes, ThermoSettings(pressure=STANDARD_PRESSURE))
    lines = [
        " -------------------",
        " - Thermochemistry -",
        " -------------------",
        " Temperature   298.150 Kelvin.  Pressure   1.00000 Atm.",
    ]
    for k, (z, mass) in enumerate(zip(structure.numbers, modes.masses, strict=True), 1):
        lines.append(f" Atom {k:5d} has atomic number {z:2d} and mass {mass:9.5f}")
    lines.append(f" Molecular mass: {modes.masses.sum():11.5f} amu.")
    linear = modes.n_rigid == 5
    if len(structure) > 1:
        sigma = symmetry_number(structure, masses=modes.masses)
        moments = moments_of_inertia(structure, modes.masses)[1 if linear else 0 :]
        hertz = planck / (8.0 * np.pi**2 * moments * atomic_mass * 1e-20)
        if linear:
            lines.append(f" Full point group                 {'D*H' if sigma == 2 else 'C*V'}     NOp   {sigma}")
            lines.append(" Largest Abelian subgroup         C1      NOp   1")
        lines.append(f" Rotational symmetry number {sigma:2d}.")
        if linear:
            lines.append(f" Rotational temperature (Kelvin) {planck * hertz.mean() / boltzmann:12.5f}")
            lines.append(f" Rotational constant (GHZ): {hertz.mean() / 1e9:18.6f}")
        else:
            temperatures = "".join(f"{planck * value / boltzmann:12.5f}" for value in hertz)
            lines.append(f" Rotational temperatures (Kelvin) {temperatures}")
            lines.append(" Rotational constants (GHZ): " + "".join(f"{value / 1e9:18.6f}" for value in hertz))
    corrections = {
        "Zero-point correction": numbers.zpe,
        "Thermal correction to Energy": sum(float(value[0]) for value in numbers.energies.values()),
        "Thermal correction to Enthalpy": float(numbers.enthalpy_correction[0]),
        "Thermal correction to Gibbs Free Energy": float(numbers.gibbs_correction[0]),
    }
    for name, value in corrections.items():
        unit = " (Hartree/Particle)" if name.startswith("Zero") else ""
        lines.append(f" {name + '=':46s}{value / Hartree:14.6f}{unit}")
    if energy is not None:
        names = ("zero-point Energies", "thermal Energies", "thermal Enthalpies", "thermal Free Energies")
        for name, value in zip(names, corrections.values(), strict=True):
            lines.append(f" Sum of electronic and {name + '=':31s}{(energy + value) / Hartree:14.6f}")
    return lines
