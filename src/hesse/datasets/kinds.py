"""What kind of data a file or a folder holds, by its suffix, its name or its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import h5py

from hesse.datasets.hdf5.plain import DAMAGE
from hesse.datasets.readers import OUTPUTS, deepmd_systems, is_phonopy, looks_grouped
from hesse.errors import FileFormatError
from hesse.files import require_file

__all__ = ["GEOMETRIES", "HDF5", "XYZ", "kind_of"]

HDF5: Final = frozenset({".h5", ".hdf5"})
XYZ: Final = frozenset({".xyz", ".extxyz"})
GEOMETRIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".poscar": "vasp",
        ".vasp": "vasp",
        ".cif": "cif",
        ".pdb": "proteindatabank",
        ".sdf": "sdf",
        ".mol": "mol",
        ".gen": "gen",
        ".xsf": "xsf",
    }
)
"""Formats of other owners, read by ASE for their geometry. None of these readers runs code from the file."""


def kind_of(path: Path) -> str:
    """One of: hdf5, grouped, xyz, npz, output, outputs, vibrations, phonopy, deepmd, geometry.

    Raises:
        FileFormatError: none of them.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return _kind_of_folder(path)
    if suffix in HDF5:
        return "phonopy" if is_phonopy(path) else _kind_of_hdf5(path)
    kinds = {**dict.fromkeys(XYZ, "xyz"), **dict.fromkeys(OUTPUTS, "output"), ".npz": "npz", ".json": "vibrations"}
    if suffix in kinds:
        return kinds[suffix]
    if is_phonopy(path):
        return "phonopy"
    if suffix in GEOMETRIES or path.name.upper().startswith(("POSCAR", "CONTCAR", "SPOSCAR")):
        return "geometry"
    raise FileFormatError(f"{path}: no reader for {suffix or 'a file without a suffix'}. {_known()}")


def _kind_of_folder(folder: Path) -> str:
    if deepmd_systems(folder):
        return "deepmd"
    if is_phonopy(folder):
        return "phonopy"
    if any(p.suffix.lower() in OUTPUTS for p in folder.rglob("*")):
        return "outputs"
    raise FileFormatError(
        f"{folder}: this is a folder. Folders are read that hold DeePMD systems (type.raw, set.*), files of phonopy or "
        f"outputs ({', '.join(sorted(OUTPUTS))}); none of these is there."
    )


def _kind_of_hdf5(path: Path) -> str:
    """Own format unless the content says otherwise: then its reader tells what it expected."""
    require_file(path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if "format" in file.attrs:
                return "hdf5"
            if "force_constants" in file:
                return "phonopy"
            return "grouped" if looks_grouped(file) else "hdf5"
    except DAMAGE:
        return "hdf5"


def _known() -> str:
    others = ", ".join(sorted(GEOMETRIES))
    return (
        f"Known: .h5, .hdf5, .extxyz, .xyz, .npz, {', '.join(sorted(OUTPUTS))}, .json (VibrationsData), phonopy*.yaml, "
        f"FORCE_CONSTANTS, folders of DeePMD, and for geometries without labels POSCAR, {others}."
    )
