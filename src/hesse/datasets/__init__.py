"""Data sets: in memory and in files, with checks of geometries and labels."""

from hesse.datasets.batching import pack_batches, shuffled_batches
from hesse.datasets.dataset import Dataset
from hesse.datasets.formats import (
    FileUnits,
    Subset,
    SubsetLike,
    from_phonopy,
    from_vibrations_data,
    iterate_grouped,
    read_deepmd,
    read_grouped,
    read_phonopy,
    read_qm_folder,
    read_qm_output,
    read_vibrations,
    to_phonopy,
    to_vibrations_data,
    write_vibrations,
)
from hesse.datasets.formats.extxyz import read_extxyz, write_extxyz
from hesse.datasets.formats.hdf5 import read_hdf5, write_hdf5
from hesse.datasets.formats.npz import read_npz
from hesse.datasets.io import (
    DatasetSource,
    as_dataset,
    check_dataset,
    check_writable_suffix,
    read_dataset,
    write_dataset,
)
from hesse.datasets.packed import PackedDataset, PackedStructures
from hesse.datasets.quality.consistency import ConsistencyReport, check_consistency, diagnose_consistency
from hesse.datasets.quality.flags import LabelIssue, find_issues, flag_suspect
from hesse.datasets.quality.sum_rules import (
    RigidBodyModes,
    SumRuleErrors,
    hessian_blocks,
    principal_rigid_body_modes,
    sum_rule_errors,
)
from hesse.datasets.splits import Split
from hesse.datasets.streaming import BLOCKS_PER_BUFFER, BUFFERS, DatasetLike, StreamingDataset, open_dataset
from hesse.datasets.structure_inputs import StructuresLike, as_structure, as_structures
from hesse.datasets.summary import dataset_summary
from hesse.datasets.transforms import (
    convert_units,
    negate_curvature,
    negate_forces,
    select_probes,
    set_charge_multiplicity,
    symmetrize_hessians,
    with_metadata,
    with_tag,
)
from hesse.structures.pairs import PairList, neighbor_pairs

__all__ = [
    "BLOCKS_PER_BUFFER",
    "BUFFERS",
    "ConsistencyReport",
    "Dataset",
    "DatasetLike",
    "DatasetSource",
    "FileUnits",
    "LabelIssue",
    "PackedDataset",
    "PackedStructures",
    "PairList",
    "RigidBodyModes",
    "Split",
    "StreamingDataset",
    "StructuresLike",
    "Subset",
    "SubsetLike",
    "SumRuleErrors",
    "as_dataset",
    "as_structure",
    "as_structures",
    "check_consistency",
    "check_dataset",
    "check_writable_suffix",
    "convert_units",
    "dataset_summary",
    "diagnose_consistency",
    "find_issues",
    "flag_suspect",
    "from_phonopy",
    "from_vibrations_data",
    "hessian_blocks",
    "iterate_grouped",
    "negate_curvature",
    "negate_forces",
    "neighbor_pairs",
    "open_dataset",
    "pack_batches",
    "principal_rigid_body_modes",
    "read_dataset",
    "read_deepmd",
    "read_extxyz",
    "read_grouped",
    "read_hdf5",
    "read_npz",
    "read_phonopy",
    "read_qm_folder",
    "read_qm_output",
    "read_vibrations",
    "select_probes",
    "set_charge_multiplicity",
    "shuffled_batches",
    "sum_rule_errors",
    "symmetrize_hessians",
    "to_phonopy",
    "to_vibrations_data",
    "with_metadata",
    "with_tag",
    "write_dataset",
    "write_extxyz",
    "write_hdf5",
    "write_vibrations",
]
