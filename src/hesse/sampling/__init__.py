"""Geometries worth labelling."""

from hesse.sampling.nms import NormalModeSampling, SamplingFailure, SamplingResult, sample_normal_modes, too_close

__all__ = ["NormalModeSampling", "SamplingFailure", "SamplingResult", "sample_normal_modes", "too_close"]
