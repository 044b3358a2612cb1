"""Readers of the formats of other programs, and the pieces they share: units, subsets, refusal of unsafe files.

Every reader converts the units and the sign of its format and returns a `Dataset` in eV and Å.
"""

from hesse.datasets.formats.ani_hdf5 import is_grouped, iterate_grouped, read_grouped
from hesse.datasets.formats.ase_vibrations import (
    from_vibrations_data,
    read_vibrations,
    to_vibrations_data,
    write_vibrations,
)
from hesse.datasets.formats.deepmd import find_deepmd_systems, read_deepmd
from hesse.datasets.formats.file_units import FileUnits
from hesse.datasets.formats.phonopy import from_phonopy, is_phonopy, read_phonopy, to_phonopy
from hesse.datasets.formats.qm_outputs import QM_SUFFIXES, read_qm_folder, read_qm_output
from hesse.datasets.formats.subset import ALL, Subset, SubsetLike, as_subset
from hesse.datasets.formats.unsafe import refuse_unsafe

__all__ = [
    "ALL",
    "QM_SUFFIXES",
    "FileUnits",
    "Subset",
    "SubsetLike",
    "as_subset",
    "find_deepmd_systems",
    "from_phonopy",
    "from_vibrations_data",
    "is_grouped",
    "is_phonopy",
    "iterate_grouped",
    "read_deepmd",
    "read_grouped",
    "read_phonopy",
    "read_qm_folder",
    "read_qm_output",
    "read_vibrations",
    "refuse_unsafe",
    "to_phonopy",
    "to_vibrations_data",
    "write_vibrations",
]
