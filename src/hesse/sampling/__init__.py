"""Geometries worth labelling: made around minima and along paths, and chosen among."""

from hesse.sampling.descriptor import fingerprint_distance, distance_fingerprint
from hesse.sampling.md import MDSampling, sample_md
from hesse.sampling.nms import NormalModeSampling, sample_normal_modes
from hesse.sampling.path import PathSampling, sample_paths
from hesse.sampling.rattle import RattleSampling, sample_rattled
from hesse.sampling.result import SamplingFailure, SamplingResult, has_collision
from hesse.sampling.selection import (
    Rejected,
    SelectionCriteria,
    SelectionResult,
    unique_structures,
    farthest_point_sampling,
    select_structures,
)

__all__ = [
    "Rejected",
    "MDSampling",
    "NormalModeSampling",
    "PathSampling",
    "RattleSampling",
    "SamplingFailure",
    "SamplingResult",
    "SelectionCriteria",
    "SelectionResult",
    "fingerprint_distance",
    "distance_fingerprint",
    "unique_structures",
    "farthest_point_sampling",
    "sample_md",
    "sample_normal_modes",
    "sample_paths",
    "sample_rattled",
    "select_structures",
    "has_collision",
]
