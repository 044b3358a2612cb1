"""Readers and writers of file formats, the table that lists them, and the pieces they share: units, subsets, refusal of
unsafe files.

Every reader converts the units and the sign of its format and returns a `Dataset` in eV and Å.
"""

from hesse.datasets.formats.ani_hdf5 import iterate_grouped, read_grouped
from hesse.datasets.formats.ase_vibrations import (
    from_vibrations_data,
    read_vibrations,
    to_vibrations_data,
    write_vibrations,
)
from hesse.datasets.formats.deepmd import read_deepmd
from hesse.datasets.formats.extxyz import read_extxyz, write_extxyz
from hesse.datasets.formats.file_units import FileUnits
from hesse.datasets.formats.hdf5 import read_hdf5, write_hdf5
from hesse.datasets.formats.npz import read_npz
from hesse.datasets.formats.phonopy import from_phonopy, read_phonopy, to_phonopy
from hesse.datasets.formats.qm_outputs import read_qm_folder, read_qm_output
from hesse.datasets.formats.subset import ALL, Subset, SubsetLike
from hesse.datasets.formats.table import FileFormat, ReadOptions, file_formats, register_format

__all__ = [
    "ALL",
    "FileFormat",
    "FileUnits",
    "ReadOptions",
    "Subset",
    "SubsetLike",
    "file_formats",
    "from_phonopy",
    "from_vibrations_data",
    "iterate_grouped",
    "read_deepmd",
    "read_extxyz",
    "read_grouped",
    "read_hdf5",
    "read_npz",
    "read_phonopy",
    "read_qm_folder",
    "read_qm_output",
    "read_vibrations",
    "register_format",
    "to_phonopy",
    "to_vibrations_data",
    "write_extxyz",
    "write_hdf5",
    "write_vibrations",
]
