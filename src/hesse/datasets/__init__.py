"""Data sets: in memory, on disk, and the checks at the door."""

from hesse.datasets.arrays import read_npz
from hesse.datasets.card import dataset_summary
from hesse.datasets.consistency import ConsistencyReport, diagnose_consistency, check_consistency
from hesse.datasets.dataset import Dataset
from hesse.datasets.doors import check_dataset, read_dataset, check_writable_suffix, write_dataset
from hesse.datasets.extxyz import read_extxyz, write_extxyz
from hesse.datasets.flat import PackedDataset, PackedStructures
from hesse.datasets.hdf5 import read_hdf5, write_hdf5
from hesse.datasets.identities import SumRuleErrors, RigidBodyModes, hessian_blocks, sum_rule_errors, principal_rigid_body_modes
from hesse.datasets.order import pack_batches, shuffled_batches
from hesse.datasets.pairs import PairList, neighbor_pairs
from hesse.datasets.readers import (
    Subset,
    FileUnits,
    from_phonopy,
    from_vibrations_data,
    iterate_grouped,
    read_deepmd,
    read_grouped,
    read_qm_output,
    read_qm_folder,
    read_phonopy,
    read_vibrations,
    to_phonopy,
    to_vibrations_data,
    write_vibrations,
)
from hesse.datasets.splits import Split
from hesse.datasets.streamed import BLOCKS_PER_BUFFER, BUFFERS, StreamingDataset, DatasetLike, open_dataset
from hesse.datasets.suspicion import LabelIssue, find_issues, flag_suspect
from hesse.datasets.transforms import (
    convert_units,
    negate_curvature,
    negate_forces,
    symmetrise_hessians,
    with_metadata,
    set_charge_multiplicity,
    select_probes,
    with_tag,
)

__all__ = [
    "BLOCKS_PER_BUFFER",
    "BUFFERS",
    "ConsistencyReport",
    "Dataset",
    "LabelIssue",
    "PackedDataset",
    "PackedStructures",
    "SumRuleErrors",
    "PairList",
    "RigidBodyModes",
    "Subset",
    "FileUnits",
    "Split",
    "StreamingDataset",
    "DatasetLike",
    "check_dataset",
    "dataset_summary",
    "diagnose_consistency",
    "find_issues",
    "neighbor_pairs",
    "flag_suspect",
    "from_phonopy",
    "convert_units",
    "from_vibrations_data",
    "hessian_blocks",
    "sum_rule_errors",
    "pack_batches",
    "iterate_grouped",
    "negate_curvature",
    "negate_forces",
    "open_dataset",
    "read_npz",
    "read_dataset",
    "read_deepmd",
    "read_extxyz",
    "read_grouped",
    "read_hdf5",
    "read_qm_output",
    "read_qm_folder",
    "read_phonopy",
    "read_vibrations",
    "check_consistency",
    "check_writable_suffix",
    "principal_rigid_body_modes",
    "shuffled_batches",
    "symmetrise_hessians",
    "to_phonopy",
    "to_vibrations_data",
    "with_metadata",
    "set_charge_multiplicity",
    "select_probes",
    "with_tag",
    "write_dataset",
    "write_extxyz",
    "write_hdf5",
    "write_vibrations",
]
