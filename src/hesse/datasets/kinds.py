"""What kind of data a file or a folder holds, by its suffix, its name or its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import h5py

from hesse.datasets.hdf5.plain import HDF5_ERRORS
from hesse.datasets.readers import QM_SUFFIXES, find_deepmd_systems, is_phonopy, is_grouped
from hesse.errors import FileFormatError
from hesse.files import check_input_file

__all__ = ["GEOMETRY_FORMATS", "HDF5_SUFFIXES", "XYZ_SUFFIXES", "detect_format"]

HDF5_SUFFIXES: Final = frozenset({".h5", ".hdf5"})
XYZ_SUFFIXES: Final = frozenset({".xyz", ".extxyz"})
GEOMETRY_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
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


def detect_format(path: Path) -> str:
    """One of: hdf5, grouped, xyz, npz, output, outputs, vibrations, phonopy, deepmd, geometry.

    Raises:
        FileFormatError: none of them.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return _detect_folder_format(path)
    if suffix in HDF5_SUFFIXES:
        return "phonopy" if is_phonopy(path) else _detect_hdf5_format(path)
    formats = {**dict.fromkeys(XYZ_SUFFIXES, "xyz"), **dict.fromkeys(QM_SUFFIXES, "output"), ".npz": "npz", ".json": "vibrations"}
    if suffix in formats:
        return formats[suffix]
    if is_phonopy(path):
        return "phonopy"
    if suffix in GEOMETRY_FORMATS or path.name.upper().startswith(("POSCAR", "CONTCAR", "SPOSCAR")):
        return "geometry"
    raise FileFormatError(f"{path}: no reader for {suffix or 'a file without a suffix'}. {_supported_formats()}")


def _detect_folder_format(folder: Path) -> str:
    if find_deepmd_systems(folder):
        return "deepmd"
    if is_phonopy(folder):
        return "phonopy"
    if any(p.suffix.lower() in QM_SUFFIXES for p in folder.rglob("*")):
        return "outputs"
    raise FileFormatError(
        f"{folder}: this is a folder. Folders are read that hold DeePMD systems (type.raw, set.*), files of phonopy or "
        f"outputs ({', '.join(sorted(QM_SUFFIXES))}); none of these is there."
    )


def _detect_hdf5_format(path: Path) -> str:
    """Own format unless the content says otherwise: then its reader tells what it expected."""
    check_input_file(path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if "format" in file.attrs:
                return "hdf5"
            if "force_constants" in file:
                return "phonopy"
            return "grouped" if is_grouped(file) else "hdf5"
    except HDF5_ERRORS:
        return "hdf5"


def _supported_formats() -> str:
    others = ", ".join(sorted(GEOMETRY_FORMATS))
    return (
        f"Known: .h5, .hdf5, .extxyz, .xyz, .npz, {', '.join(sorted(QM_SUFFIXES))}, .json (VibrationsData), phonopy*.yaml, "
        f"FORCE_CONSTANTS, folders of DeePMD, and for geometries without labels POSCAR, {others}."
    )
