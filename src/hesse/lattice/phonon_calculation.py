"""Phonons of a crystal with any engine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineLike, as_engine
from hesse.errors import HarmonicWarning, RequestError
from hesse.harmonic.masses import MassesLike, atom_masses
from hesse.lattice.born import born_charges
from hesse.lattice.files import holds_phonons, read_cell
from hesse.lattice.force_constants import compute_force_constants
from hesse.lattice.phonons_result import Phonons
from hesse.lattice.relaxation import relax_crystal, state_of
from hesse.lattice.supercells import as_supercell_matrix, check_crystal, default_supercell, import_phonopy, make_record
from hesse.structures import Structure

__all__ = ["as_crystal", "phonons"]


def as_crystal(structure: StructuresLike) -> tuple[Structure, Any]:
    """Convert to a crystal.

    Args:
        structure: ASE Atoms, a Structure, a file with one structure, or a folder or YAML file of phonopy.

    Returns:
        The crystal, and the supercell matrix where phonopy's files have one (None otherwise).

    Raises:
        GeometryError: it is no crystal.
        HesseError: it cannot be read.
    """
    matrix = None
    if isinstance(structure, str | Path) and holds_phonons(structure):
        crystal, matrix = read_cell(structure)
    else:
        crystal = as_structure(structure)
    check_crystal(crystal)
    return crystal, matrix


def phonons(
    structure: StructuresLike,
    engine: EngineLike,
    *,
    supercell: ArrayLike | None = None,
    displacement: float | None = None,
    relax: bool = False,
    relax_cell: bool = False,
    pressure: float = 0.0,
    fmax: float = 1e-3,
    steps: int = 300,
    primitive: ArrayLike | str = "auto",
    symmetry: bool | None = None,
    symprec: float = 1e-5,
    masses: MassesLike = None,
    born: str | Path | Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    quiet: bool = True,
) -> Phonons:
    """Compute the phonons of a crystal with an engine or a model.

    Force constants are exact Hessian-vector products of models, one per symmetry-distinct displacement, or differences
    of the gradients of other engines. A `HarmonicWarning` tells of forces, of a stress, of violated symmetries, and of
    a supercell that is too small.

    Args:
        structure: the crystal: ASE Atoms, a Structure, the path of a file (POSCAR, CIF, ...), or of phonopy's files.
        engine: a name, the path of a model, an Engine, a Potential or an ASE calculator.
        supercell: one number, three, or a matrix whose rows are the lattice vectors of the supercell in those of the
            cell; None for that of phonopy's files, or at least 10 Å in all directions.
        displacement: Å; finite displacements of this length, as phonopy makes them, in place of products.
        relax: relax the atoms first, keeping the space group.
        relax_cell: relax atoms and cell first.
        pressure: external pressure of a cell that is relaxed, GPa.
        fmax: largest force of the relaxation, eV/Å.
        steps: maximal number of its steps.
        primitive: the primitive cell: "auto", "P" for the cell itself, a centering ("F", "I", "A", "C", "R") or a
            matrix.
        symmetry: whether the space group reduces the displacements; None decides by the time that finding it takes.
        symprec: tolerance of the space group, Å.
        masses: "average" (standard atomic weights, the default), "principal" (the most abundant isotopes), or masses in
            u of the atoms of the cell.
        born: a BORN file of phonopy, or a mapping with "born" and "dielectric", for longitudinal optical modes.
        cache: a folder that keeps products and forces as they come, so that the same call continues after an
            interruption.
        quiet: show no progress.

    Returns:
        The phonons.

    Raises:
        RequestError: not one crystal, or not an engine.
        FileFormatError: a BORN file that is missing, damaged or of another crystal.
        GeometryError: a molecule, a placeholder cell, or a supercell that does not fit.
        ConfigError: options that are no proper numbers.
        EngineError: the engine failed, or the relaxation did not converge.
        MissingExtraError: phonopy is not installed.
    """
    import_phonopy()
    engine = as_engine(engine)
    crystal, stored = as_crystal(structure)
    weights = atom_masses(crystal, masses, None)
    if supercell is None:
        supercell = default_supercell(crystal) if stored is None else stored
    matrix = as_supercell_matrix(supercell, crystal)
    if pressure and not relax_cell:
        raise RequestError(f"a pressure of {pressure} GPa was given, but the cell is not relaxed (relax_cell=True)")
    options: dict[str, Any] = {"primitive": primitive, "symmetry": symmetry, "symprec": symprec, "masses": weights}
    record = make_record(crystal, matrix, **options)  # errors of the cells come before the engine works
    if born is not None:
        born_charges(record, born)  # and those of the charges too
    if relax or relax_cell:
        state = relax_crystal(
            crystal, engine, cell=relax_cell, pressure=pressure, fmax=fmax, steps=steps, symprec=symprec
        )
        record = make_record(state.structure, matrix, **options)
    else:
        state = state_of(crystal, engine)
    report = compute_force_constants(
        record, engine, displacement=displacement, id=f"{crystal.id}/supercell", cache=cache, quiet=quiet
    )
    pressure_left = None if state.pressure is None else state.pressure - pressure
    result = Phonons(
        state.structure, engine.level, report, record, state.energy, state.fmax, pressure_left, state.shear
    )
    if born is not None:
        result = result.with_born(born)
    for text in result.warnings():
        warnings.warn(f'structure "{crystal.id}": {text}', HarmonicWarning, stacklevel=2)
    return result
