"""Geometries without labels, read by ASE and checked for what is not an atom, partly occupied, or not read."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.molfile import read_molfile
from hesse.datasets.formats.protein_data_bank import read_pdb
from hesse.errors import FileFormatError, HesseError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties, from_ase

__all__ = ["GEOMETRY_SUFFIXES", "is_geometry", "read_geometries"]

_OWN: Final[Mapping[str, Callable[[Path], Dataset]]] = {".pdb": read_pdb, ".sdf": read_molfile, ".mol": read_molfile}
_OF_ASE: Final[Mapping[str, str]] = {".poscar": "vasp", ".vasp": "vasp", ".cif": "cif", ".gen": "gen", ".xsf": "xsf"}
"""Formats from which ASE reads the geometry, by suffix. None of these readers runs code from the file."""
GEOMETRY_SUFFIXES: Final = tuple(sorted((*_OWN, *_OF_ASE)))
"""Suffixes of geometries without labels."""


def is_geometry(path: Path) -> bool:
    """Whether a file holds geometries without labels, by its name.

    Args:
        path: the file.

    Returns:
        True for the suffixes, and for POSCAR and its relatives.
    """
    return path.suffix.lower() in GEOMETRY_SUFFIXES or path.name.upper().startswith(("POSCAR", "CONTCAR", "SPOSCAR"))


def read_geometries(path: Path) -> Dataset:
    """Read all structures of a file of geometries.

    Args:
        path: the file.

    Returns:
        Structures in Å without labels.

    Raises:
        FileFormatError: damaged, of another format, or with sites that are partly occupied.
        GeometryError: an invalid geometry, or what is not an atom.
    """
    check_input_file(path)
    suffix = path.suffix.lower()
    if suffix in _OWN:
        return _OWN[suffix](path)
    ase_format = _OF_ASE.get(suffix, "vasp")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters in them is checked here
            names, frames = _read_cif(path) if ase_format == "cif" else _read_with_ase(path, ase_format)
    except HesseError:
        raise
    except Exception as error:  # the readers raise errors of many types
        raise FileFormatError(f"{path}: cannot be read as {ase_format}: {type(error).__name__}: {error}") from error
    if not frames:
        raise FileFormatError(f"{path}: holds no structure")
    if len(frames) == 1:
        names = [path.stem]
    elif len(set(names)) < len(frames) or not all(name.isprintable() and name for name in names):
        names = [f"{path.stem}-{i}" for i in range(len(frames))]
    not_read: Counter[str] = Counter()
    structures = []
    for atoms, name in zip(frames, names, strict=True):
        not_read.update(dict.fromkeys(_not_read(atoms), 1))
        try:
            structures.append(from_ase(atoms, id=name))
        except HesseError as error:
            raise type(error)(f"{path}: {error}") from None
    labels = Properties.concatenate([Properties.single(len(s)) for s in structures])
    return Dataset(tuple(structures), labels, source=str(path), not_read=not_read)


def _read_with_ase(path: Path, ase_format: str) -> tuple[list[str], list[Atoms]]:
    from ase.io import read  # imports half of ASE

    return [], list(read(path, index=":", format=ase_format))


def _read_cif(path: Path) -> tuple[list[str], list[Atoms]]:
    from ase.io.cif import parse_cif

    names, frames = [], []
    with open(path, "rb") as handle:
        for block in parse_cif(handle):
            if not block.has_structure():
                continue
            _check_occupancy(path, block)
            names.append(str(block.name))
            frames.append(block.get_atoms())
    return names, frames


def _check_occupancy(path: Path, block: Mapping[str, Any]) -> None:
    """Refuse sites that are shared or partly empty: a disordered crystal is an average, not a structure."""
    values = block.get("_atom_site_occupancy")
    if values is None:
        return
    labels = block.get("_atom_site_label") or block.get("_atom_site_type_symbol") or range(len(values))
    partial = [
        f"{label} ({value})"
        for label, value in zip(labels, values, strict=True)
        if str(value) not in ".?" and abs(float(str(value).partition("(")[0]) - 1.0) > 1e-3
    ]
    if partial:
        raise FileFormatError(
            f"{path}: sites that are not fully occupied: {', '.join(partial[:6])}. A disordered crystal is no "
            "structure; choose an ordered one (a supercell) and write it with occupancies of 1."
        )


def _not_read(atoms: Atoms) -> list[str]:
    """Contents of the file beside the geometry."""
    results = [] if atoms.calc is None else list(atoms.calc.results)
    magnetic = ["initial magnetic moments"] if np.any(atoms.get_initial_magnetic_moments()) else []
    velocities = ["velocities"] if atoms.has("momenta") and np.any(atoms.get_momenta()) else []
    constraints = ["constraints (selective dynamics)"] if atoms.constraints else []
    return [*results, *magnetic, *velocities, *constraints]
