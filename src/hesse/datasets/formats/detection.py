"""Detection of the format of a file or folder by its suffix, name or content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import h5py

from hesse.datasets.formats.ani_hdf5 import is_grouped
from hesse.datasets.formats.deepmd import find_deepmd_systems
from hesse.datasets.formats.hdf5.safety import HDF5_ERRORS
from hesse.datasets.formats.phonopy import is_phonopy
from hesse.datasets.formats.qm_outputs import QM_SUFFIXES
from hesse.errors import FileFormatError
from hesse.runtime.filesystem import check_input_file

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
"""Formats from which ASE reads the geometry, by suffix. None of these readers runs code from the file."""


def detect_format(path: Path) -> str:
    """Detect the format of a data set.

    Args:
        path: a file or a folder.

    Returns:
        One of: hdf5, grouped, xyz, npz, output, outputs, vibrations, phonopy, deepmd, geometry.

    Raises:
        FileFormatError: none of these.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return _detect_folder_format(path)
    if suffix in HDF5_SUFFIXES:
        return "phonopy" if is_phonopy(path) else _detect_hdf5_format(path)
    formats = {
        **dict.fromkeys(XYZ_SUFFIXES, "xyz"),
        **dict.fromkeys(QM_SUFFIXES, "output"),
        ".npz": "npz",
        ".json": "vibrations",
    }
    if suffix in formats:
        return formats[suffix]
    if is_phonopy(path):
        return "phonopy"
    if suffix in GEOMETRY_FORMATS or path.name.upper().startswith(("POSCAR", "CONTCAR", "SPOSCAR")):
        return "geometry"
    check_input_file(path)
    raise FileFormatError(f"{path}: no reader for {suffix or 'a file without a suffix'}. {_supported_formats()}")


def _detect_folder_format(folder: Path) -> str:
    if find_deepmd_systems(folder):
        return "deepmd"
    if is_phonopy(folder):
        return "phonopy"
    if any(p.suffix.lower() in QM_SUFFIXES for p in folder.rglob("*")):
        return "outputs"
    raise FileFormatError(
        f"{folder}: this is a folder. Folders that can be read hold DeePMD systems (type.raw, set.*), files of phonopy "
        f"or outputs ({', '.join(sorted(QM_SUFFIXES))}); it contains none of these."
    )


def _detect_hdf5_format(path: Path) -> str:
    """Hesse's own format unless the content shows another one; its reader reports all other problems."""
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
    return (
        f"Known: .h5, .hdf5, .extxyz, .xyz, .npz, {', '.join(sorted(QM_SUFFIXES))}, .json (VibrationsData), "
        "phonopy*.yaml, FORCE_CONSTANTS, folders of DeePMD, and for geometries without labels POSCAR, "
        f"{', '.join(sorted(GEOMETRY_FORMATS))}."
    )
