"""Distributions of beads in a liquid: pair distances, angles of neighbors, density along an axis, displacements.

Pair distances and displacements are computed by freud (Ramasubramani et al., Comput. Phys. Commun. 254, 107275 (2020)).
Each distribution is kept in blocks of frames that follow each other, from which errors are estimated: blocks much
longer than the memory of the liquid are independent of each other, single frames are not.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.coarse.bead_frames import BeadFrames
from hesse.coarse.state_points import GRAM_PER_CM3
from hesse.errors import RequestError, check_whole_numbers
from hesse.runtime.imports import import_optional
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import find_neighbors

__all__ = [
    "BLOCKS",
    "BinnedDistribution",
    "angular_distribution",
    "block_count",
    "density_profile",
    "mean_square_displacement",
    "radial_distribution",
]

BLOCKS: Final = 10
"""Blocks of frames by default."""
FRAMES_PER_BLOCK: Final = 4
"""Blocks of fewer frames are not independent of each other, and their scatter is too small."""
LEAST_BLOCKS: Final = 3
"""Of fewer blocks the scatter is not known."""


@dataclass(frozen=True, eq=False, repr=False)
class BinnedDistribution(ShortRepr):
    """A distribution in bins, of each block of frames.

    Attributes:
        centers: of the bins.
        blocks: values, `[blocks, bins]`.
    """

    centers: Float[Array, "bins"]
    blocks: Float[Array, "blocks bins"]

    @property
    def mean(self) -> Float[Array, "bins"]:
        """Mean of all blocks."""
        mean: Float[Array, "bins"] = self.blocks.mean(axis=0)
        return mean

    @property
    def width(self) -> float:
        """Width of a bin."""
        return float(self.centers[1] - self.centers[0])

    def resampled(self, samples: int, seed: int = 0) -> Float[Array, "samples bins"]:
        """Means of blocks drawn with replacement (block bootstrap).

        Their deviations from the mean are enlarged by √(B/(B−1)) for B blocks, without which the scatter of a mean of
        few blocks would be too small.

        Args:
            samples: how many.
            seed: of the draws.

        Returns:
            The means; a single block gives equal ones.
        """
        count = len(self.blocks)
        drawn = np.random.default_rng(seed).integers(0, count, (samples, count))
        means: Float[Array, "samples bins"] = self.blocks[drawn].mean(axis=1)
        return self.mean + np.sqrt(count / max(count - 1, 1)) * (means - self.mean)

    def band(self, *, confidence: float = 0.95, samples: int = 1000, seed: int = 0) -> Float[Array, "2 bins"]:
        """Confidence band of the mean, bin by bin, by block bootstrap.

        Args:
            confidence: of each bin.
            samples: number of bootstrap samples.
            seed: of the draws.

        Returns:
            Lower and upper limit; NaN with a single block.
        """
        if len(self.blocks) < 2:
            return np.full((2, len(self.centers)), np.nan)
        tail = 0.5 * (1.0 - confidence)
        limits: Float[Array, "2 bins"] = np.quantile(self.resampled(samples, seed), [tail, 1.0 - tail], axis=0)
        return limits


def block_count(frames: int, blocks: int | None = None, *, where: str = "the data") -> int:
    """The number of blocks that frames can be divided into, such that their scatter means something.

    Args:
        frames: number of frames.
        blocks: what the user asks for; None: 10, or fewer of at least 4 frames each.
        where: what the frames are, for the message.

    Returns:
        The number; 1, from which no error follows, if there would be fewer than 3.

    Raises:
        RequestError: blocks of fewer than 4 frames.
    """
    most = frames // FRAMES_PER_BLOCK
    if blocks is None:
        return min(BLOCKS, most) if most >= LEAST_BLOCKS else 1
    check_whole_numbers(blocks=blocks)
    if blocks < 1 or (blocks > 1 and blocks > most):
        allowed = f"at most {most} are possible" if most >= LEAST_BLOCKS else "they are too few for blocks"
        raise RequestError(
            f"{where} has {frames} frames, which cannot be divided into {blocks} blocks (--blocks) of at least "
            f"{FRAMES_PER_BLOCK} frames each: {allowed}. Leave the option out for a suitable number"
        )
    return blocks


def radial_distribution(
    frames: BeadFrames,
    *,
    r_max: float | None = None,
    bins: int = 100,
    pair: tuple[str, str] | None = None,
    blocks: int = BLOCKS,
) -> BinnedDistribution:
    """The radial distribution function g(r), normalized so that an ideal gas of any number of beads has g = 1.

    Args:
        frames: of one state point.
        r_max: Å; at most half the width of the cell, which is the default.
        bins: number of bins.
        pair: two bead types; None: all beads.
        blocks: number of blocks of frames.

    Returns:
        g in bins of r (Å).

    Raises:
        RequestError: a distance beyond half the cell, no such beads, or fewer than two beads.
        MissingExtraError: freud is not installed.
    """
    freud, limit = _freud("radial distribution functions"), frames.half_width
    check_whole_numbers(bins=bins, blocks=blocks)
    # freud works in single precision and refuses the exact half.
    r_max = limit * (1.0 - 1e-5) if r_max is None else float(r_max)
    if not (0 < r_max < limit):
        raise RequestError(f"r_max must be positive and below half the width of the cell, {limit:.3f} Å, got {r_max:g}")
    first, second = (frames.of_type(name) for name in pair) if pair else (np.arange(len(frames.numbers)),) * 2
    same = pair is None or pair[0] == pair[1]
    if same and len(first) < 2:
        raise RequestError("a radial distribution function of equal beads needs two of them or more")
    of_ideal_gas = len(first) / (len(first) - 1) if same else 1.0  # a bead is not its own neighbor
    box, positions = _freud_box(freud, frames)
    values = []
    for chosen in _blocks(len(frames), blocks):
        rdf = freud.density.RDF(bins=bins, r_max=r_max)
        for points in positions[chosen]:
            query = None if same else points[second]
            rdf.compute((box, points[first]), query_points=query, reset=False)
        values.append(of_ideal_gas * rdf.rdf.astype(np.float64))
    edges = np.linspace(0.0, r_max, bins + 1)
    return BinnedDistribution(0.5 * (edges[1:] + edges[:-1]), np.array(values))


def angular_distribution(
    frames: BeadFrames, *, cutoff: float, bins: int = 90, pair: tuple[str, str] | None = None, blocks: int = BLOCKS
) -> BinnedDistribution:
    """The distribution of angles between two neighbors of a bead, per degree; its integral is 1.

    Angles of random directions have the density `sin(θ) π/360` per degree.

    Args:
        frames: of one state point.
        cutoff: Å; beads closer than this are neighbors, usually up to the first minimum of g(r).
        bins: number of bins from 0 to 180°.
        pair: types of the bead in the middle and of both neighbors; None: all beads.
        blocks: number of blocks of frames.

    Returns:
        Densities in bins of the angle (degrees). A block in which no bead has two neighbors is zero.

    Raises:
        RequestError: a cutoff that is not positive, or no such beads.
    """
    check_whole_numbers(bins=bins, blocks=blocks)
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise RequestError(f"the cutoff of neighbors must be a positive number of Å, got {cutoff}")
    middle, outer = (np.zeros(len(frames.numbers), dtype=bool) for _ in range(2))
    for mask, name in zip((middle, outer), pair or (None, None), strict=True):
        mask[slice(None) if name is None else frames.of_type(name)] = True
    edges = np.linspace(0.0, 180.0, bins + 1)
    values = []
    for chosen in _blocks(len(frames), blocks):
        counts = sum(_angle_counts(p, frames.cell, cutoff, edges, middle, outer) for p in frames.positions[chosen])
        values.append(counts / max(np.sum(counts), 1) * bins / 180.0)
    return BinnedDistribution(0.5 * (edges[1:] + edges[:-1]), np.array(values))


def _angle_counts(
    positions: Float[Array, "beads 3"],
    cell: Float[Array, "3 3"],
    cutoff: float,
    edges: Float[Array, "edges"],
    middle: Any,
    outer: Any,
) -> Float[Array, "bins"]:
    """Numbers of angles in bins, each pair of neighbors once."""
    pairs = find_neighbors(positions, cell, (True, True, True), cutoff)
    selected = middle[pairs.centers] & outer[pairs.neighbors]
    centers = pairs.centers[selected]
    ends = positions[pairs.neighbors[selected]] + pairs.cell_shifts[selected] @ cell
    units = ends - positions[centers]
    units /= np.linalg.norm(units, axis=1)[:, None]
    # Neighbors of a bead are consecutive: pairs (k, k + shift) of the same bead, for each shift.
    counts = np.zeros(len(edges) - 1)
    most = int(np.bincount(centers).max(initial=0))
    for shift in range(1, most):
        same = centers[shift:] == centers[:-shift]
        cosines = np.sum(units[shift:][same] * units[:-shift][same], axis=1)
        counts += np.histogram(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))), edges)[0]
    return counts


def density_profile(
    frames: BeadFrames, *, axis: int = 2, bins: int = 50, blocks: int = BLOCKS, centered: bool = True
) -> BinnedDistribution:
    """The mass density along a lattice vector.

    Args:
        frames: of one state point.
        axis: number of the lattice vector, 0, 1 or 2.
        bins: number of bins.
        blocks: number of blocks of frames.
        centered: move the center of mass of each frame (of the periodic system, by the phases of its beads) to the
            middle, as slabs need, which drift.

    Returns:
        g/cm³, in bins of the height above the face of the other two lattice vectors (Å).

    Raises:
        RequestError: no such axis.
    """
    check_whole_numbers(bins=bins, blocks=blocks)
    if axis not in (0, 1, 2):
        raise RequestError(f"the axis of a density profile is 0, 1 or 2, got {axis!r}")
    fractions = (frames.positions @ np.linalg.inv(frames.cell))[..., axis]
    if centered:
        phase = np.exp(2j * np.pi * fractions) @ frames.masses
        fractions = fractions - np.angle(phase)[:, None] / (2 * np.pi) + 0.5
    fractions = fractions - np.floor(fractions)
    others = [frames.cell[k] for k in range(3) if k != axis]
    height = frames.volume / float(np.linalg.norm(np.cross(*others)))
    edges = np.linspace(0.0, 1.0, bins + 1)
    scale = GRAM_PER_CM3 * bins / frames.volume
    values = []
    for chosen in _blocks(len(frames), blocks):
        weights = np.broadcast_to(frames.masses, fractions[chosen].shape)
        total = np.histogram(fractions[chosen].ravel(), edges, weights=weights.ravel())[0]
        values.append(scale * total / len(fractions[chosen]))
    return BinnedDistribution(height * 0.5 * (edges[1:] + edges[:-1]), np.array(values))


def mean_square_displacement(frames: BeadFrames) -> tuple[Float[Array, "lags"], Float[Array, "lags"]]:
    """The mean-square displacement of beads, averaged over all starting times of all runs.

    Beads of a coarse model lack the friction of the atoms that were left out: their times are not those of the atoms.

    Args:
        frames: of one state point.

    Returns:
        Times (ps; numbers of frames if the time between frames is not known) and displacements (Å²), up to half the
        shortest run of three frames or more.

    Raises:
        RequestError: no run has three frames.
        MissingExtraError: freud is not installed.
    """
    freud = _freud("mean-square displacements")
    paths = [path for path in frames.unwrapped() if len(path) >= 3]
    if not paths:
        raise RequestError(f"{frames.name or 'the frames'}: no run has three frames, which displacements need")
    lags = min(len(path) for path in paths) // 2 + 1
    total, weight = np.zeros(lags), 0
    for path in paths:
        # Relative to the start, because freud computes in single precision.
        msd = freud.msd.MSD(mode="window").compute(path - path[:1].mean(axis=1, keepdims=True))
        total += len(path) * np.asarray(msd.msd[:lags], dtype=np.float64)
        weight += len(path)
    return np.arange(lags) * (frames.frame_time or 1.0), total / weight


def _blocks(frames: int, blocks: int) -> list[slice]:
    """Consecutive frames in blocks of nearly equal length."""
    ends = np.linspace(0, frames, min(blocks, frames) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]


def _freud(purpose: str) -> ModuleType:
    import_optional("freud.density", extra="coarse", purpose=purpose)
    import_optional("freud.msd", extra="coarse", purpose=purpose)
    return import_optional("freud", extra="coarse", purpose=purpose)


def _freud_box(freud: ModuleType, frames: BeadFrames) -> tuple[Any, Float[Array, "frames beads 3"]]:
    """The cell with its first vector along x and the second in the plane of x and y, as freud has it, and the
    positions turned with it and wrapped."""
    r = np.linalg.qr(frames.cell.T)[1]
    # Lattice vectors as columns, on a positive diagonal: a left-handed cell is mirrored, which no distance shows.
    upper = np.sign(np.diag(r))[:, None] * r
    fractions = frames.positions @ np.linalg.inv(frames.cell)
    fractions -= np.floor(fractions) + 0.5
    return freud.box.Box.from_matrix(upper), fractions @ upper.T
