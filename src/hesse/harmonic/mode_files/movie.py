"""A normal mode as a series of geometries."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from hesse.errors import RequestError, check_numbers, check_whole_numbers
from hesse.harmonic.normal_modes import NormalModes
from hesse.structures import Structure, to_ase

__all__ = ["mode_movie"]


def mode_movie(
    structure: Structure, modes: NormalModes, mode: int, *, frames: int = 20, amplitude: float = 0.3
) -> list[Atoms]:
    """One period of a normal mode as geometries.

    Args:
        structure: the geometry.
        modes: its normal modes.
        mode: index of the mode, from 0.
        frames: number of geometries; they start at the structure itself.
        amplitude: Å; largest displacement of the atom that moves most.

    Returns:
        ASE Atoms; `info` has the index of the mode (`mode`) and its frequency (`frequency_cm`, cm⁻¹).

    Raises:
        RequestError: there is no such mode, or `frames` or `amplitude` is not positive.
        ConfigError: something other than numbers.
    """
    check_whole_numbers(mode=mode, frames=frames)
    check_numbers(amplitude=amplitude)
    if not 0 <= mode < len(modes):
        raise RequestError(f'structure "{structure.id}": there is no mode {mode}; it has {len(modes)}, from 0')
    if frames < 1 or not (np.isfinite(amplitude) and amplitude > 0):
        raise RequestError(f"a movie needs at least one frame and a positive amplitude, got {frames} and {amplitude}")
    displacement = modes.unit_displacements[mode]
    displacement = amplitude * displacement / np.linalg.norm(displacement, axis=1).max()
    movie = []
    for k in range(frames):
        atoms = to_ase(structure)
        atoms.positions += np.sin(2.0 * np.pi * k / frames) * displacement
        atoms.info |= {"mode": mode, "frequency_cm": round(float(modes.frequencies[mode]), 4)}
        movie.append(atoms)
    return movie
