"""Paths through the Brillouin zone, and bands along them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray as Array

from hesse.errors import ConfigError, check_whole_numbers
from hesse.lattice.supercells import phonopy_errors
from hesse.runtime.imports import import_optional
from hesse.runtime.short_repr import ShortRepr

__all__ = ["BandPath", "Bands", "DensityOfStates", "ImaginaryMode", "band_path", "connect_branches"]


@dataclass(frozen=True, eq=False, repr=False)
class BandPath(ShortRepr):
    """A path through the Brillouin zone.

    Attributes:
        q: wave vectors in reciprocal lattice vectors of the primitive cell, `[segments, points, 3]`.
        labels: names of the two ends of each segment ("GAMMA" is written Γ).
        distances: along the path, 1/Å (without 2π), `[segments, points]`; segments that do not touch follow each other
            without a gap.
    """

    q: Float[Array, "segments points 3"]
    labels: tuple[tuple[str, str], ...]
    distances: Float[Array, "segments points"]

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and names of the special points.

        Returns:
            Distance and label; where the path jumps, "U|K".
        """
        ticks = [(float(self.distances[0, 0]), self.labels[0][0])]
        for k, (_, end) in enumerate(self.labels):
            next_start = self.labels[k + 1][0] if k + 1 < len(self.labels) else end
            ticks.append((float(self.distances[k, -1]), end if next_start == end else f"{end}|{next_start}"))
        return ticks


@dataclass(frozen=True, eq=False, repr=False)
class Bands(ShortRepr):
    """Frequencies along a path.

    Attributes:
        path: the path.
        frequencies: THz, ascending at each wave vector, imaginary ones negative, `[segments, points, modes]`.
        branches: the same frequencies in the order of branches, which are alike in their eigenvectors from point to
            point of a segment: where they cross, they go on. For large primitive cells as `frequencies`.
    """

    path: BandPath
    frequencies: Float[Array, "segments points modes"]
    branches: Float[Array, "segments points modes"]


def connect_branches(
    frequencies: Float[Array, "segments points modes"], eigenvectors: Complex[Array, "segments points d modes"]
) -> Float[Array, "segments points modes"]:
    """Order the frequencies of each wave vector by branches.

    Args:
        frequencies: in any order.
        eigenvectors: in columns, in the same order.

    Returns:
        Frequencies whose eigenvectors overlap most with those of the same branch at the wave vector before.
    """
    from scipy.optimize import linear_sum_assignment

    result = frequencies.copy()
    for k, vectors in enumerate(eigenvectors):
        order = np.arange(frequencies.shape[-1])
        for i in range(1, len(vectors)):
            overlaps = np.abs(vectors[i - 1].conj().T @ vectors[i]) ** 2
            order = linear_sum_assignment(overlaps, maximize=True)[1][order]
            result[k, i] = frequencies[k, i, order]
    return result


@dataclass(frozen=True, eq=False, repr=False)
class DensityOfStates(ShortRepr):
    """Density of phonon states.

    Attributes:
        frequencies: THz; imaginary ones are negative.
        density: modes per THz and primitive cell; its integral is the number of modes.
    """

    frequencies: Float[Array, "points"]
    density: Float[Array, "points"]


@dataclass(frozen=True)
class ImaginaryMode:
    """The lowest imaginary mode of a wave vector.

    Attributes:
        q: wave vector in reciprocal lattice vectors of the primitive cell.
        frequency: THz, negative.
        commensurate: whether the wave fits the supercell, so that the frequency is no interpolation.
        name: name of the special point, or an empty text.
    """

    q: tuple[float, float, float]
    frequency: float
    commensurate: bool
    name: str = ""

    def __str__(self) -> str:
        where = "(" + ", ".join(f"{x:.3g}" for x in self.q) + ")"
        kind = "" if self.commensurate else ", interpolated"
        return f"{-self.frequency:.3f}i THz at {self.name + ' ' if self.name else ''}{where}{kind}"


def band_path(primitive: Any, points: int = 51, symprec: float = 1e-5) -> BandPath:
    """The path of Hinuma et al. between the special points of a lattice, from seekpath.

    Y. Hinuma, G. Pizzi, Y. Kumagai, F. Oba, I. Tanaka, Comput. Mater. Sci. 128, 140 (2017).

    Args:
        primitive: the primitive cell, phonopy's; it need not be the standardized one.
        points: number of wave vectors of each segment.
        symprec: tolerance of the space group, Å.

    Returns:
        The path.

    Raises:
        ConfigError: fewer than two points.
        MissingExtraError: seekpath is not installed.
        GeometryError: seekpath finds no path.
    """
    check_whole_numbers(points=points)
    if points < 2:
        raise ConfigError(f"points: expected at least 2 of each segment, got {points}")
    seekpath = import_optional("seekpath", extra="materials", purpose="the path of bands")
    with phonopy_errors("seekpath finds no path through the Brillouin zone of the primitive cell"):
        result = seekpath.get_path_orig_cell(
            (primitive.cell, primitive.scaled_positions, primitive.numbers), symprec=symprec
        )
        special, segments = result["point_coords"], result["path"]
    steps = np.linspace(0.0, 1.0, points)[:, None]
    q = np.array(
        [np.asarray(special[a]) + steps * (np.asarray(special[b]) - np.asarray(special[a])) for a, b in segments]
    )
    reciprocal = np.linalg.inv(primitive.cell)  # columns
    lengths = np.linalg.norm((q[:, -1] - q[:, 0]) @ reciprocal.T, axis=1)
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return BandPath(
        q, tuple((_label(a), _label(b)) for a, b in segments), starts[:, None] + steps[:, 0] * lengths[:, None]
    )


def _label(name: str) -> str:
    """The name of a special point as it is printed: Γ, Σ0, ..."""
    greek = {"GAMMA": "Γ", "DELTA": "Δ", "LAMBDA": "Λ", "SIGMA": "Σ"}
    stem, _, index = name.partition("_")
    return greek.get(stem, stem) + index.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
