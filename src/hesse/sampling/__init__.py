"""Geometries worth labelling: made around minima and along paths, and chosen among."""

from hesse.sampling.descriptor import descriptor_distance, distance_fingerprint
from hesse.sampling.md import DynamicsSampling, sample_dynamics
from hesse.sampling.nms import NormalModeSampling, sample_normal_modes
from hesse.sampling.path import PathSampling, sample_paths
from hesse.sampling.rattle import RattleSampling, sample_rattled
from hesse.sampling.result import SamplingFailure, SamplingResult, too_close
from hesse.sampling.selection import (
    Dropped,
    Selection,
    SelectionResult,
    distinct,
    farthest_points,
    select_structures,
)

__all__ = [
    "Dropped",
    "DynamicsSampling",
    "NormalModeSampling",
    "PathSampling",
    "RattleSampling",
    "SamplingFailure",
    "SamplingResult",
    "Selection",
    "SelectionResult",
    "descriptor_distance",
    "distance_fingerprint",
    "distinct",
    "farthest_points",
    "sample_dynamics",
    "sample_normal_modes",
    "sample_paths",
    "sample_rattled",
    "select_structures",
    "too_close",
]
