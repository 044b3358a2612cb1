"""Readers of files that other programs write, each with its units and its sign, and what they share."""

from hesse.datasets.readers.deepmd import deepmd_systems, read_deepmd
from hesse.datasets.readers.flat import is_flat, read_flat
from hesse.datasets.readers.grouped import iterate_grouped, looks_grouped, read_grouped
from hesse.datasets.readers.outputs import OUTPUTS, read_output, read_outputs
from hesse.datasets.readers.phonons import from_phonopy, is_phonopy, read_phonopy, to_phonopy
from hesse.datasets.readers.refused import refuse_if_it_runs_code
from hesse.datasets.readers.selection import EVERYTHING, Selection
from hesse.datasets.readers.units import SourceUnits
from hesse.datasets.readers.vibrations import (
    from_vibrations_data,
    read_vibrations,
    to_vibrations_data,
    write_vibrations,
)

__all__ = [
    "EVERYTHING",
    "OUTPUTS",
    "Selection",
    "SourceUnits",
    "deepmd_systems",
    "from_phonopy",
    "from_vibrations_data",
    "is_flat",
    "is_phonopy",
    "iterate_grouped",
    "looks_grouped",
    "read_deepmd",
    "read_flat",
    "read_grouped",
    "read_output",
    "read_outputs",
    "read_phonopy",
    "read_vibrations",
    "refuse_if_it_runs_code",
    "to_phonopy",
    "to_vibrations_data",
    "write_vibrations",
]
