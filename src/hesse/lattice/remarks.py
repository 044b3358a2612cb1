"""Remarks about phonons that a reader of their frequencies should know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesse.lattice.phonons_result import Phonons

__all__ = ["phonon_remarks"]

_MAX_FORCE = 0.01
"""eV/Å."""
_MAX_STRESS = 0.5
"""GPa."""
_MAX_ASYMMETRY = 1e-2
"""Of the force constants."""
_MAX_BOUNDARY = 0.05


def phonon_remarks(phonons: Phonons) -> list[str]:
    """Remarks about forces, stress, symmetries and the size of the supercell.

    Args:
        phonons: the phonons.

    Returns:
        Sentences; none if all is well.
    """
    report, texts = phonons.report, []
    if phonons.fmax is not None and phonons.fmax > _MAX_FORCE:
        texts.append(
            f"the largest force on an atom is {phonons.fmax:.2g} eV/Å: the crystal is not relaxed, and frequencies "
            "have no simple meaning there (--relax)"
        )
    if phonons.pressure is not None and abs(phonons.pressure) > _MAX_STRESS:
        texts.append(
            f"the pressure is {phonons.pressure:.2g} GPa: these are the phonons of the cell as given, not of the cell "
            "in which the engine has no stress (--relax-cell)"
        )
    if phonons.shear is not None and phonons.shear > _MAX_STRESS:
        texts.append(f"the stress is not that of a pressure: it deviates from it by up to {phonons.shear:.2g} GPa")
    if report.asymmetry > _MAX_ASYMMETRY:
        texts.append(
            f"imposing sum rule and symmetries changes the force constants by {100 * report.asymmetry:.1f} % (largest "
            f"sum over neighbors {report.sum_rule:.2g} eV/Å²): forces that are not converged, displacements that are "
            "too large, or a model that breaks a symmetry"
        )
    reaches = report.cutoff is not None and report.cutoff > report.half_width
    # With Born charges the dipoles, which reach farthest, are interpolated in closed form.
    if reaches or (report.boundary > _MAX_BOUNDARY and not phonons.polar):
        cutoff = (
            f"the cutoff of the potential ({report.cutoff:.3g} Å) exceeds half the width of the supercell "
            f"({report.half_width:.3g} Å)"
            if reaches
            else f"half the width of the supercell is {report.half_width:.3g} Å"
        )
        texts.append(
            f"{cutoff}, and force constants near its boundary are {100 * report.boundary:.1f} % of the largest: those "
            "of periodic images are added together. Frequencies at wave vectors that fit the supercell stay exact, "
            "others are interpolated; a larger supercell shows whether it matters"
        )
    return texts
