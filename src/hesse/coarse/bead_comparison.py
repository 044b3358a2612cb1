"""Dynamics of beads beside the mapped reference: distributions with bands, their differences, and what noise explains.

Of each curve the difference of model and reference has an interval by block bootstrap, and beside it stands the
difference that two perfect runs of these lengths would have on average. Only what exceeds it is an error of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.coarse.bead_distributions import (
    BinnedDistribution,
    angular_distribution,
    block_count,
    mean_square_displacement,
    radial_distribution,
)
from hesse.coarse.bead_frames import BeadFrames, frames_by_state_point
from hesse.datasets import Dataset, StructuresLike, read_dataset
from hesse.errors import RequestError
from hesse.runtime.short_repr import ShortRepr

__all__ = ["BeadComparison", "CurveComparison", "StatePointComparison", "compare_beads"]

_SAMPLES: Final = 1000
_CONFIDENCE: Final = 0.95
_MINIMUM_RANGE: Final = 1.8
"""The first minimum of g(r) is sought up to this multiple of the distance of its highest peak."""
_DENSITY_TOLERANCE: Final = 0.01
"""Relative; state points of one name with other densities are not compared."""


@dataclass(frozen=True, eq=False, repr=False)
class CurveComparison(ShortRepr):
    """A distribution of the model and of the reference.

    Attributes:
        name: such as "g(r) W-W" or "angles at W".
        kind: "rdf" or "adf".
        model, reference: distributions in the same bins.
        error: their difference: for g(r) the mean of |Δg| from 0 to the largest r; for angles half the integral of
            |ΔP|, which is 0 for equal and 1 for disjoint distributions.
        low, high: 95 % interval of the difference that runs without noise would have, by block bootstrap of both
            (reverse percentiles, because noise makes any difference larger; it may lie below `error`).
        noise: the mean difference of two perfect runs as long as these. NaN with a single block.
    """

    name: str
    kind: Literal["rdf", "adf"]
    model: BinnedDistribution
    reference: BinnedDistribution
    error: float
    low: float
    high: float
    noise: float

    @property
    def significant(self) -> bool | None:
        """Whether the difference exceeds what noise explains: twice its mean. None if the noise is not known."""
        return bool(self.error > 2.0 * self.noise) if math.isfinite(self.noise) else None


@dataclass(frozen=True, eq=False, repr=False)
class StatePointComparison(ShortRepr):
    """All curves of one state point.

    Attributes:
        name: the state point.
        frames, reference_frames: numbers of frames.
        curves: distributions.
        peaks: of the g(r) of each pair of types: distance (Å) and height of the highest bin, and the number of
            neighbors up to the first minimum of the reference; of model and reference.
        cutoffs: that minimum, Å, of each pair.
        diffusion: slopes of the mean-square displacements over 6, Å²/ps, of model and reference; NaN where times are
            not known or runs are too short. Beads move faster than molecules: see `speed_up`.
        frame_times: ps between frames of model and reference; None where it is not known.
        failed_runs: names of runs of the model that failed, whose frames are included.
    """

    name: str
    frames: int
    reference_frames: int
    curves: tuple[CurveComparison, ...]
    peaks: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]]
    cutoffs: Mapping[str, float]
    diffusion: tuple[float, float]
    frame_times: tuple[float | None, float | None] = (None, None)
    failed_runs: tuple[str, ...] = ()

    @property
    def speed_up(self) -> float:
        """How much faster beads diffuse than molecules do: times of coarse dynamics are not real times. NaN if
        unknown."""
        model, reference = self.diffusion
        return model / reference if reference > 0 else math.nan


@dataclass(frozen=True, eq=False, repr=False)
class BeadComparison(ShortRepr):
    """Dynamics of beads beside the mapped reference, state point by state point.

    Attributes:
        points: the comparisons.
        missing: state points of the reference that the model has no frames of.
    """

    points: tuple[StatePointComparison, ...]
    missing: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per state point and curve: JSON values (None for what is not known)."""
        return [row for point in self.points for row in _rows(point)]


def compare_beads(
    model: StructuresLike,
    reference: StructuresLike,
    *,
    r_max: float | None = None,
    bins: int = 100,
    angle_bins: int = 60,
    angle_cutoff: float | None = None,
    skip: float = 0.0,
    frame_time: float | None = None,
    reference_frame_time: float | None = None,
    blocks: int | None = None,
    seed: int = 0,
) -> BeadComparison:
    """Compare dynamics of beads with the mapped all-atom trajectory.

    Args:
        model: frames of the model, with the state point as tag: a data set, its file, or a list of structures.
        reference: mapped frames of the reference.
        r_max: Å, of g(r); by default half the smaller of both cells.
        bins: number of bins of g(r).
        angle_bins: number of bins of angles.
        angle_cutoff: Å, of the neighbors between which angles are; by default the first minimum of the reference's
            g(r).
        skip: ps at the start of each run of the model that are left out.
        frame_time: ps between frames of the model; by default what the data set says (metadata `frame_time`).
        reference_frame_time: the same of the reference.
        blocks: number of blocks of frames for errors; each should be longer than the memory of the liquid, and has at
            least 4 frames. None: 10, or fewer for short runs. The noise is not known with fewer than 12 frames.
        seed: of the bootstrap.

    Returns:
        The comparison of all state points that both have.

    Raises:
        RequestError: no state point in common, other beads, other densities under one name, or blocks of fewer than 4
            frames.
        GeometryError: cells that are not periodic or that change within a state point.
        MissingExtraError: freud is not installed.
    """
    model, reference = _loaded(model), _loaded(reference)
    ours = frames_by_state_point(model, frame_time=_time_of(model, frame_time), where="the model")
    theirs = frames_by_state_point(
        reference, frame_time=_time_of(reference, reference_frame_time), where="the reference"
    )
    if len(ours) == len(theirs) == 1 and "" in (*ours, *theirs):  # one of both has no tag: nothing can be confused
        ours = {name: next(iter(ours.values())) for name in theirs}
    names = [name for name in theirs if name in ours]
    if not names:
        raise RequestError(
            f"model and reference have no state point in common: {_listed(ours)} and {_listed(theirs)}. State points "
            'are the tags of the frames, such as "300K 1.000g/cm3"'
        )
    points = []
    for name in names:
        first, second = ours[name].without_start(skip), theirs[name]
        _check_same_system(name, first, second)
        found = _compare_point(name, first, second, r_max, bins, angle_bins, angle_cutoff, blocks, seed)
        points.append(replace(found, failed_runs=_failed_runs(model, ours[name].name)))
    return BeadComparison(tuple(points), tuple(name for name in theirs if name not in ours))


def _loaded(frames: StructuresLike) -> StructuresLike:
    """The data set of a file; anything else as it is."""
    return read_dataset(frames, check=False) if isinstance(frames, str | Path) else frames


def _time_of(frames: object, given: float | None) -> float | None:
    """The time between frames, from the metadata of a data set."""
    if given is not None:
        return given
    text = frames.metadata.get("frame_time", "") if isinstance(frames, Dataset) else ""
    try:
        time = float(text.split()[0])
    except (ValueError, IndexError):
        return None
    return time if time > 0 else None


def _failed_runs(frames: object, tag: str) -> tuple[str, ...]:
    """Runs of a state point that failed, as `run_beads` writes them to the metadata."""
    if not isinstance(frames, Dataset):
        return ()
    failed = set(frames.metadata.get("failed_runs", "").split("; "))
    names = dict.fromkeys(s.id.rpartition("/")[0] for s in frames.structures if s.tag == tag)
    return tuple(name for name in names if name in failed)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}"' if name else "(no tag)" for name in list(names)[:6]) or "none"


def _check_same_system(name: str, model: BeadFrames, reference: BeadFrames) -> None:
    if model.types != reference.types:
        raise RequestError(
            f'state point "{name}": the model has beads of type {", ".join(model.types)}, the reference '
            f"{', '.join(reference.types)}"
        )
    for kind in reference.types:
        ratio = (len(model.of_type(kind)) / model.volume) / (len(reference.of_type(kind)) / reference.volume)
        if abs(ratio - 1.0) > _DENSITY_TOLERANCE:
            raise RequestError(
                f'state point "{name}": the density of {kind} in the model is {ratio:.3f} times that of the reference'
            )


def _compare_point(
    name: str,
    model: BeadFrames,
    reference: BeadFrames,
    r_max: float | None,
    bins: int,
    angle_bins: int,
    angle_cutoff: float | None,
    blocks: int | None,
    seed: int,
) -> StatePointComparison:
    label = f', state point "{name}"' if name else ""
    sides = [
        (frames, block_count(len(frames), blocks, where=f"{where}{label}"))
        for frames, where in ((model, "the model"), (reference, "the reference"))
    ]
    limit = min(model.half_width, reference.half_width) * (1.0 - 1e-5)
    types = reference.types
    curves, peaks, cutoffs = [], {}, {}
    for i, first in enumerate(types):
        for second in types[i:]:
            both = [
                radial_distribution(f, r_max=r_max or limit, bins=bins, pair=(first, second), blocks=count)
                for f, count in sides
            ]
            pair = f"{first}-{second}"
            curves.append(_compare_curve(f"g(r) {pair}", "rdf", both[0], both[1], seed))
            cutoffs[pair] = first_minimum(both[1])
            density = len(reference.of_type(second)) / reference.volume
            ours, theirs = (_peak(rdf, cutoffs[pair], density) for rdf in both)
            peaks[pair] = (ours, theirs)
    for kind in types:
        cutoff = angle_cutoff or cutoffs[f"{kind}-{kind}"]
        angles = [
            angular_distribution(f, cutoff=cutoff, bins=angle_bins, pair=(kind, kind), blocks=count)
            for f, count in sides
        ]
        curves.append(_compare_curve(f"angles at {kind}", "adf", angles[0], angles[1], seed))
    return StatePointComparison(
        name,
        len(model),
        len(reference),
        tuple(curves),
        peaks,
        cutoffs,
        (_diffusion(model), _diffusion(reference)),
        (model.frame_time, reference.frame_time),
    )


def _compare_curve(
    name: str, kind: Literal["rdf", "adf"], model: BinnedDistribution, reference: BinnedDistribution, seed: int
) -> CurveComparison:
    weight = 1.0 / len(model.centers) if kind == "rdf" else 0.5 * model.width

    def size(difference: Float[Array, "*samples bins"]) -> Float[Array, "*samples"]:
        sizes: Float[Array, "*samples"] = weight * np.abs(difference).sum(axis=-1)
        return sizes

    error = model.mean - reference.mean
    low = high = noise = math.nan
    if min(len(model.blocks), len(reference.blocks)) > 1:
        drawn = model.resampled(_SAMPLES, seed) - reference.resampled(_SAMPLES, seed + 1)
        tail = 0.5 * (1.0 - _CONFIDENCE)
        below, above = np.quantile(size(drawn), [tail, 1.0 - tail])
        low, high = (max(0.0, float(2.0 * size(error) - limit)) for limit in (above, below))
        noise = float(size(drawn - error).mean())
    return CurveComparison(name, kind, model, reference, float(size(error)), low, high, noise)


def first_minimum(rdf: BinnedDistribution) -> float:
    """The first minimum of g(r) behind its highest peak, where the first shell of neighbors ends.

    Args:
        rdf: g(r).

    Returns:
        Å; the end of the range if g(r) has no minimum before.
    """
    g, peak = rdf.mean, int(rdf.mean.argmax())
    behind = (rdf.centers >= rdf.centers[peak]) & (rdf.centers <= _MINIMUM_RANGE * rdf.centers[peak])
    smooth = np.convolve(np.pad(g, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    return float(rdf.centers[np.where(behind, smooth, np.inf).argmin()])


def _peak(rdf: BinnedDistribution, cutoff: float, density: float) -> tuple[float, float, float]:
    """Distance and height of the highest bin, and number of neighbors up to a distance."""
    k, g = int(rdf.mean.argmax()), rdf.mean
    shells = 4.0 * np.pi * density * g * rdf.centers**2 * rdf.width
    return float(rdf.centers[k]), float(g[k]), float(shells[rdf.centers <= cutoff].sum())


def _diffusion(frames: BeadFrames) -> float:
    """Å²/ps, from the second half of the displacements; NaN where it is not known."""
    if frames.frame_time is None:
        return math.nan
    try:
        times, displacements = mean_square_displacement(frames)
    except RequestError:
        return math.nan
    late = slice(len(times) // 2, None)
    if len(times[late]) < 3:
        return math.nan
    return float(np.polyfit(times[late], displacements[late], 1)[0]) / 6.0


def _rows(point: StatePointComparison) -> Iterator[dict[str, Any]]:
    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    for curve in point.curves:
        row: dict[str, Any] = {
            "state_point": point.name,
            "curve": curve.name,
            "kind": curve.kind,
            "error": curve.error,
            "low": known(curve.low),
            "high": known(curve.high),
            "noise": known(curve.noise),
            "significant": curve.significant,
            "frames": point.frames,
            "reference_frames": point.reference_frames,
        }
        pair = curve.name.removeprefix("g(r) ")
        if pair in point.peaks:
            for whose, peak in zip(("model", "reference"), point.peaks[pair], strict=True):
                names = ("peak_distance", "peak_height", "neighbors")
                row |= {f"{whose}_{key}": value for key, value in zip(names, peak, strict=True)}
            row["neighbor_cutoff"] = point.cutoffs[pair]
        row["speed_up"] = known(point.speed_up)
        yield row
