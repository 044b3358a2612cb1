"""Frames of boxes of beads as arrays: all of one state point, with the pieces of trajectory that follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.datasets import StructuresLike, as_structures
from hesse.errors import GeometryError, RequestError
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure, chemical_formula, species_names

__all__ = ["BeadFrames", "frames_by_state_point"]

_SAME_CELL = 1e-3
"""Å; cells that differ by less are the same (files round them)."""


@dataclass(frozen=True, eq=False, repr=False)
class BeadFrames(ShortRepr):
    """Frames of the same beads in the same cell.

    Attributes:
        name: the state point (the tag of the frames), or "".
        numbers: bead types (or elements), `[beads]`.
        masses: u, `[beads]`.
        positions: Å, `[frames, beads, 3]`; anywhere, not only inside the cell.
        cell: lattice vectors as rows, Å; all three directions are periodic.
        runs: number of the run to which each frame belongs, in ascending order: frames of one run follow each other in
            time.
        frame_time: ps between the frames of a run; None if it is not known.
    """

    name: str
    numbers: Int[Array, "beads"]
    masses: Float[Array, "beads"]
    positions: Float[Array, "frames beads 3"]
    cell: Float[Array, "3 3"]
    runs: Int[Array, "frames"]
    frame_time: float | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def volume(self) -> float:
        """Å³."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def half_width(self) -> float:
        """Half the smallest distance between opposite faces of the cell, Å: distribution functions end there."""
        faces = np.linalg.norm(np.cross(self.cell[[1, 2, 0]], self.cell[[2, 0, 1]]), axis=1)
        return 0.5 * self.volume / float(faces.max())

    @property
    def types(self) -> tuple[str, ...]:
        """Names of the bead types, each once, in alphabetic order."""
        return tuple(sorted(set(species_names(self.numbers))))

    def of_type(self, name: str) -> Int[Array, "chosen"]:
        """The beads of a type.

        Args:
            name: of the type.

        Returns:
            Their indices.

        Raises:
            RequestError: there is no such bead.
        """
        names = species_names(self.numbers)
        chosen = np.flatnonzero([n == name for n in names])
        if not len(chosen):
            raise RequestError(f"there are no beads of type {name!r}, only {', '.join(self.types)}")
        return chosen

    def without_start(self, ps: float) -> BeadFrames:
        """The frames less those at the start of each run.

        Args:
            ps: how much to leave out.

        Returns:
            The later frames.

        Raises:
            RequestError: the time between frames is not known, or nothing would be left.
        """
        if ps == 0:
            return self
        if self.frame_time is None:
            raise RequestError("the time between frames is not known: give it (frame_time, --frame-time, ps)")
        age = np.concatenate([np.arange(count) for count in np.unique(self.runs, return_counts=True)[1]])
        selected = age * self.frame_time >= ps
        if not selected.any():
            raise RequestError(
                f"{self.name or 'the frames'}: no frame is later than {ps:g} ps; the longest run has "
                f"{age.max() * self.frame_time:g} ps"
            )
        chosen = (self.positions[selected], self.cell, self.runs[selected])
        return BeadFrames(self.name, self.numbers, self.masses, *chosen, self.frame_time)

    def unwrapped(self) -> list[Float[Array, "frames beads 3"]]:
        """Positions of each run as continuous paths, and relative to the center of mass.

        Returns:
            Å, one array per run. A bead is assumed to move by less than half the cell between frames.
        """
        paths = []
        for run in np.unique(self.runs):
            positions = self.positions[self.runs == run]
            steps = np.diff(positions, axis=0) @ np.linalg.inv(self.cell)
            steps -= np.round(steps)
            path = np.concatenate([positions[:1], positions[:1] + np.cumsum(steps @ self.cell, axis=0)])
            center = np.einsum("i,fix->fx", self.masses, path) / self.masses.sum()
            paths.append(path - center[:, None])
        return paths


def frames_by_state_point(
    structures: StructuresLike, *, frame_time: float | None = None, where: str = "the frames"
) -> dict[str, BeadFrames]:
    """The frames of a data set, by state point.

    Args:
        structures: frames with the state point as their tag: a data set, its file, or a list of structures. The part
            of the id before the last "/" names the run of a frame.
        frame_time: ps between frames of a run.
        where: words for error messages.

    Returns:
        Frames by tag, in the order of the tags' first frames.

    Raises:
        RequestError: no frames; frames of different beads under one tag.
        GeometryError: cells that are not periodic, or that change within one tag.
    """
    by_tag: dict[str, list[Structure]] = {}
    for structure in as_structures(structures):
        by_tag.setdefault(structure.tag, []).append(structure)
    if not by_tag:
        raise RequestError(f"{where}: there are no frames")
    return {tag: _stacked(tag, frames, frame_time, where) for tag, frames in by_tag.items()}


def _stacked(tag: str, frames: Sequence[Structure], frame_time: float | None, where: str) -> BeadFrames:
    first, label = frames[0], f'{where}, state point "{tag}"' if tag else where
    if not all(first.pbc):
        raise GeometryError(f"{label}: distributions of liquids need a cell that is periodic in three directions")
    for frame in frames[1:]:
        if not np.array_equal(frame.numbers, first.numbers):
            formulas = f"{chemical_formula(first.numbers)} and {chemical_formula(frame.numbers)}"
            raise RequestError(
                f"{label}: frames {first.id} and {frame.id} have different beads ({formulas}). Frames of different "
                "systems or state points need tags of their own"
            )
        if np.abs(frame.cell - first.cell).max() > _SAME_CELL:
            raise GeometryError(
                f"{label}: the cell changes, from {_lengths(first)} to {_lengths(frame)} Å ({frame.id}). Frames of one "
                "state point need one density: give each density a tag of its own"
            )
    names = [frame.id.rpartition("/")[0] for frame in frames]
    order = {name: k for k, name in enumerate(dict.fromkeys(names))}
    runs = np.array([order[name] for name in names])
    sequence = np.argsort(runs, kind="stable")
    positions = np.stack([frame.positions for frame in frames])[sequence]
    masses = np.array(first.atomic_masses)
    return BeadFrames(tag, np.array(first.numbers), masses, positions, np.array(first.cell), runs[sequence], frame_time)


def _lengths(structure: Structure) -> str:
    return " x ".join(f"{length:.3f}" for length in np.linalg.norm(structure.cell, axis=1))
