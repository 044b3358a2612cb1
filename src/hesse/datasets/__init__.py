"""Data sets: in memory, on disk, and the checks at the door."""

from hesse.datasets.arrays import read_arrays
from hesse.datasets.card import data_card
from hesse.datasets.consistency import Consistency, diagnose_consistency, require_consistency
from hesse.datasets.dataset import Dataset
from hesse.datasets.doors import check_dataset, read_dataset, require_writable_suffix, write_dataset
from hesse.datasets.extxyz import read_extxyz, write_extxyz
from hesse.datasets.flat import FlatData, FlatStructures
from hesse.datasets.hdf5 import read_hdf5, write_hdf5
from hesse.datasets.identities import IdentityDefects, RigidBasis, hessian_blocks, identity_defects, rigid_basis
from hesse.datasets.order import in_runs, shuffled
from hesse.datasets.pairs import PairTable, find_pairs
from hesse.datasets.readers import (
    Selection,
    SourceUnits,
    from_phonopy,
    from_vibrations_data,
    iterate_grouped,
    read_deepmd,
    read_grouped,
    read_output,
    read_outputs,
    read_phonopy,
    read_vibrations,
    to_phonopy,
    to_vibrations_data,
    write_vibrations,
)
from hesse.datasets.splits import Split
from hesse.datasets.streamed import BLOCKS, POOLS, StreamedDataset, TrainingData, open_dataset
from hesse.datasets.suspicion import Doubt, find_doubts, flag_suspects
from hesse.datasets.transforms import (
    from_units,
    negate_curvature,
    negate_forces,
    symmetrise_hessians,
    with_attributes,
    with_electrons,
    with_pairs,
    with_tag,
)

__all__ = [
    "BLOCKS",
    "POOLS",
    "Consistency",
    "Dataset",
    "Doubt",
    "FlatData",
    "FlatStructures",
    "IdentityDefects",
    "PairTable",
    "RigidBasis",
    "Selection",
    "SourceUnits",
    "Split",
    "StreamedDataset",
    "TrainingData",
    "check_dataset",
    "data_card",
    "diagnose_consistency",
    "find_doubts",
    "find_pairs",
    "flag_suspects",
    "from_phonopy",
    "from_units",
    "from_vibrations_data",
    "hessian_blocks",
    "identity_defects",
    "in_runs",
    "iterate_grouped",
    "negate_curvature",
    "negate_forces",
    "open_dataset",
    "read_arrays",
    "read_dataset",
    "read_deepmd",
    "read_extxyz",
    "read_grouped",
    "read_hdf5",
    "read_output",
    "read_outputs",
    "read_phonopy",
    "read_vibrations",
    "require_consistency",
    "require_writable_suffix",
    "rigid_basis",
    "shuffled",
    "symmetrise_hessians",
    "to_phonopy",
    "to_vibrations_data",
    "with_attributes",
    "with_electrons",
    "with_pairs",
    "with_tag",
    "write_dataset",
    "write_extxyz",
    "write_hdf5",
    "write_vibrations",
]
