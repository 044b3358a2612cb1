"""Cells that no crystal has: placeholders of programs for molecules, or lengths in another unit.

Programs sum over images, and in a cube of 1 Å there are so many that one energy takes hours. Such cells are refused
where data are checked, and by engines before native code sees them, where it could not be stopped.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from hesse.errors import GeometryError
from hesse.structures.species import species_radii
from hesse.structures.structure import Structure

__all__ = ["check_cell"]

_IMAGE_FRACTION = 0.65
"""Of two covalent radii: nearer than this no atom comes to its own image (0.73 of them in α-uranium, 0.69 in caesium at
8 GPa)."""

_MAX_DENSITY = 0.9
"""Atoms per Å³; diamond has 0.18, hydrogen at 500 GPa has 0.7."""


def check_cell(structure: Structure) -> None:
    """Check that a periodic cell is one that a crystal, slab or chain can have.

    Args:
        structure: the structure.

    Raises:
        GeometryError: an atom would meet its own image, or the cell has too many atoms for its volume.
    """
    if not structure.periodic:
        return
    directions = [range(-1, 2) if periodic else range(1) for periodic in structure.pbc]
    shifts = np.array([shift for shift in product(*directions) if any(shift)])
    shortest = float(np.linalg.norm(shifts @ structure.cell, axis=1).min())
    limit = _IMAGE_FRACTION * 2.0 * float(species_radii(structure.numbers).max())
    volume = abs(float(np.linalg.det(structure.cell))) if all(structure.pbc) else np.inf
    if shortest >= limit and len(structure) <= _MAX_DENSITY * volume:
        return
    content = f"{len(structure)} atoms" + (f" in {volume:.3g} Å³" if np.isfinite(volume) else "")
    raise GeometryError(
        f'structure "{structure.id}": its cell repeats every {shortest:.3g} Å ({content}), which no crystal does: the '
        "cell is a placeholder, or in another unit. Remove it from a molecule (pbc F F F), or give the cell in Å."
    )
