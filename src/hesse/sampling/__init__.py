"""Geometries worth labelling."""

from hesse.sampling.descriptor import descriptor_distance, distance_fingerprint
from hesse.sampling.nms import NormalModeSampling, SamplingFailure, SamplingResult, sample_normal_modes, too_close
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
    "NormalModeSampling",
    "SamplingFailure",
    "SamplingResult",
    "Selection",
    "SelectionResult",
    "descriptor_distance",
    "distance_fingerprint",
    "distinct",
    "farthest_points",
    "sample_normal_modes",
    "select_structures",
    "too_close",
]
