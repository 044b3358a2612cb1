"""Phonons as text for the terminal, and as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import units

from hesse.lattice import Bands, PhononComparison, Phonons, ThermalProperties

__all__ = ["phonon_row", "phonon_table"]

_KJ_PER_MOL = float(units.mol / units.kJ)
_J_PER_MOL = 1e3 * _KJ_PER_MOL
_MAX_MODES = 12
_MAX_IMAGINARY = 6


def phonon_row(
    phonons: Phonons, thermal: ThermalProperties, bands: Bands | None = None, comparison: PhononComparison | None = None
) -> dict[str, Any]:
    """The numbers of phonons as a row.

    Args:
        phonons: the phonons.
        thermal: their thermodynamic functions.
        bands: their bands.
        comparison: with a reference.

    Returns:
        Frequencies in THz, energies in eV and heat capacities in eV/K per primitive cell; `n_imaginary` counts
        commensurate wave vectors and segments of the path.
    """
    report, imaginary = phonons.report, phonons.imaginary_modes(bands)
    row: dict[str, Any] = {
        "id": phonons.structure.id,
        "level": phonons.level,
        "atoms_primitive": len(phonons.primitive),
        "atoms_supercell": len(phonons.supercell),
        "space_group": report.space_group,
        "method": report.method,
        "n_displacements": report.n_displacements,
        "sum_rule": report.sum_rule,
        "asymmetry": report.asymmetry,
        "force_constants_error": report.error,
        "boundary": report.boundary,
        "seconds": report.seconds,
        "fmax": phonons.fmax,
        "pressure": phonons.pressure,
        "gamma": phonons.gamma.tolist(),
        "max_frequency": _highest(phonons, bands),
        "n_imaginary": len(imaginary),
        "imaginary": [
            {"q": list(m.q), "name": m.name, "frequency": m.frequency, "commensurate": m.commensurate}
            for m in imaginary
        ],
        "zpe": thermal.zpe,
        "imaginary_fraction": thermal.imaginary_fraction,
        "temperature": thermal.temperatures.tolist(),
        "free_energy": thermal.free_energy.tolist(),
        "entropy": thermal.entropy.tolist(),
        "heat_capacity": thermal.heat_capacity.tolist(),
        "warnings": phonons.warnings(),
    }
    return row if comparison is None else row | {"reference": comparison.row()}


def phonon_table(
    phonons: Phonons, thermal: ThermalProperties, bands: Bands | None = None, comparison: PhononComparison | None = None
) -> str:
    """Phonons as text.

    Args:
        phonons: the phonons.
        thermal: their thermodynamic functions.
        bands: their bands.
        comparison: with a reference.

    Returns:
        Several lines.
    """
    report = phonons.report
    supercell = f"supercell of {len(phonons.supercell)} atoms, {len(phonons.primitive)} in the primitive cell"
    group = f", space group {report.space_group}" if report.space_group else ""
    lines = [f"{phonons.structure.id}{', ' + phonons.level if phonons.level else ''}: {supercell}{group}"]
    what = "Hessian-vector products" if report.method == "products" else report.method
    many = f"{report.n_displacements} of {report.n_columns} directions, " if report.n_displacements else ""
    lines.append(
        f"force constants: {what}; {many}sum rule {report.sum_rule:.1e} eV/Å², symmetries change them by "
        f"{report.asymmetry:.1e}" + (f", error {report.error:.1e} eV/Å²" if report.error is not None else "")
    )
    shown = ", ".join(
        f"{nu:.3f}" if nu > -1e-3 else f"{-nu:.3f}i" for nu in np.round(phonons.gamma[:_MAX_MODES], 6) + 0.0
    )
    more = ", ..." if len(phonons.gamma) > _MAX_MODES else ""
    lines.append(f"at Γ: {shown}{more} THz; highest {_highest(phonons, bands):.3f} THz")
    lines += _imaginary_lines(phonons, bands)
    lines.append(f"zero-point energy {thermal.zpe:.5f} eV ({thermal.zpe * _KJ_PER_MOL:.3f} kJ/mol) per primitive cell")
    lines.append("  T (K)    F (kJ/mol)  S (J/mol/K)  C_V (J/mol/K)")
    for row in thermal.rows():
        lines.append(
            f"{row['temperature']:7g}  {row['free_energy'] * _KJ_PER_MOL:12.4f} {row['entropy'] * _J_PER_MOL:12.4f} "
            f"{row['heat_capacity'] * _J_PER_MOL:14.4f}"
        )
    return "\n".join(lines if comparison is None else [*lines, *_comparison_lines(comparison)])


def _highest(phonons: Phonons, bands: Bands | None) -> float:
    values = phonons.gamma if bands is None else bands.frequencies
    return float(np.max(values))


def _imaginary_lines(phonons: Phonons, bands: Bands | None) -> list[str]:
    modes = phonons.imaginary_modes(bands)
    if not modes:
        where = "wave vectors that fit the supercell" + ("" if bands is None else " and along the path")
        return [f"no imaginary modes at {where}"]
    more = f"; {len(modes) - _MAX_IMAGINARY} more" if len(modes) > _MAX_IMAGINARY else ""
    exact = any(mode.commensurate for mode in modes)
    remark = "" if exact else " (all of them interpolated: a larger supercell shows whether they are real)"
    return [f"imaginary modes{remark}: {'; '.join(str(mode) for mode in modes[:_MAX_IMAGINARY])}{more}"]


def _comparison_lines(comparison: PhononComparison) -> list[str]:
    a, b = comparison.thermal, comparison.thermal_reference
    lines = [
        f"against the reference, on a mesh: frequencies rms {comparison.rms:.4f}, mean {comparison.mae:.4f}, largest "
        f"{comparison.largest:.4f} THz; highest {comparison.max_frequency:.3f} against "
        f"{comparison.max_frequency_reference:.3f} THz"
    ]
    for k, t in enumerate(a.temperatures):
        lines.append(
            f"  at {t:g} K: F {(a.free_energy[k] - b.free_energy[k]) * _KJ_PER_MOL:+.4f} kJ/mol, "
            f"S {(a.entropy[k] - b.entropy[k]) * _J_PER_MOL:+.4f}, "
            f"C_V {(a.heat_capacity[k] - b.heat_capacity[k]) * _J_PER_MOL:+.4f} J/mol/K"
        )
    return lines
