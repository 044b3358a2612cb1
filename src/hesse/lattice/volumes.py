"""Phonons of a crystal at several volumes, for Grüneisen parameters and thermal expansion."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from hesse.datasets import StructuresLike
from hesse.engines import EngineLike, as_engine
from hesse.errors import ConfigError, HarmonicWarning
from hesse.lattice.phonon_calculation import as_crystal, phonons
from hesse.lattice.phonons_result import Phonons
from hesse.lattice.relaxation import relax_crystal
from hesse.runtime.progress import track
from hesse.structures import Structure

__all__ = ["GRUENEISEN_VOLUMES", "QUASIHARMONIC_VOLUMES", "phonons_at_volumes", "scaled"]

GRUENEISEN_VOLUMES = (0.99, 1.0, 1.01)
"""Of the volume of the crystal."""
QUASIHARMONIC_VOLUMES = (0.96, 0.975, 0.99, 1.0, 1.015, 1.03, 1.045, 1.06)
"""Of the volume of the crystal; expansion needs more room above than below."""
_MAX_FACTOR = 2.0


def scaled(structure: Structure, factor: float) -> Structure:
    """The crystal at another volume, with the same shape of the cell and the same fractional coordinates.

    Args:
        structure: the crystal.
        factor: ratio of the volumes.

    Returns:
        The scaled crystal.
    """
    ratio = float(np.cbrt(factor))
    return Structure(
        structure.numbers,
        structure.positions * ratio,
        id=f"{structure.id}/volume-{factor:g}",
        cell=structure.cell * ratio,
        pbc=structure.pbc,
        charge=structure.charge,
        multiplicity=structure.multiplicity,
        masses=structure.masses,
    )


def phonons_at_volumes(
    structure: StructuresLike,
    engine: EngineLike,
    factors: Sequence[float] = QUASIHARMONIC_VOLUMES,
    *,
    shape: bool = False,
    fmax: float = 1e-3,
    steps: int = 300,
    **options: Any,
) -> list[Phonons]:
    """Compute phonons at several volumes; atoms are relaxed at each of them.

    Args:
        structure: the crystal, see `hesse.phonons`; relax its cell first.
        engine: the engine.
        factors: volumes as multiples of that of the crystal.
        shape: also relax the shape of the cell at each volume, which cubic crystals do not need.
        fmax: largest force of the relaxations, eV/Å.
        steps: maximal number of steps of each relaxation.
        **options: of `hesse.phonons`.

    Returns:
        Phonons in the order of the volumes.

    Raises:
        ConfigError: factors that are no numbers around 1.
        HesseError: see `hesse.phonons`.
    """
    engine = as_engine(engine)
    crystal, stored = as_crystal(structure)
    options.setdefault("supercell", stored)
    if not all(1 / _MAX_FACTOR < factor < _MAX_FACTOR for factor in factors):
        raise ConfigError(f"volumes: expected multiples of the volume of the crystal near 1, got {list(factors)}")
    quiet = bool(options.pop("quiet", True))
    results = []
    with track("phonons at volumes", len(factors), quiet=quiet) as advance:
        for factor in factors:
            state = relax_crystal(scaled(crystal, factor), engine, cell=shape, volume=True, fmax=fmax, steps=steps)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HarmonicWarning)  # of the pressure, which is wanted here
                results.append(phonons(state.structure, engine, **options))
            advance()
    return results
