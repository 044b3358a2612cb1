"""Readers of files that other programs write, each with its units and its sign, and what they share."""

from hesse.datasets.readers.deepmd import find_deepmd_systems, read_deepmd
from hesse.datasets.readers.flat import is_packed, read_packed
from hesse.datasets.readers.grouped import iterate_grouped, is_grouped, read_grouped
from hesse.datasets.readers.outputs import QM_SUFFIXES, read_qm_output, read_qm_folder
from hesse.datasets.readers.phonons import from_phonopy, is_phonopy, read_phonopy, to_phonopy
from hesse.datasets.readers.refused import refuse_unsafe
from hesse.datasets.readers.selection import ALL, Subset
from hesse.datasets.readers.units import FileUnits
from hesse.datasets.readers.vibrations import (
    from_vibrations_data,
    read_vibrations,
    to_vibrations_data,
    write_vibrations,
)

__all__ = [
    "ALL",
    "QM_SUFFIXES",
    "Subset",
    "FileUnits",
    "find_deepmd_systems",
    "from_phonopy",
    "from_vibrations_data",
    "is_packed",
    "is_phonopy",
    "iterate_grouped",
    "is_grouped",
    "read_deepmd",
    "read_packed",
    "read_grouped",
    "read_qm_output",
    "read_qm_folder",
    "read_phonopy",
    "read_vibrations",
    "refuse_unsafe",
    "to_phonopy",
    "to_vibrations_data",
    "write_vibrations",
]
