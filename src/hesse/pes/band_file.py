"""The images of a path in a file, from which an interrupted search continues."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import RequestError
from hesse.pes.geometry_changes import displacement
from hesse.pes.reaction_path import PathPoint
from hesse.runtime.filesystem import check_output_path
from hesse.structures import Properties, Structure

__all__ = ["BandFile"]

_NEAR = 1e-3
"""Å; the same end, relaxed twice, is at most this far from itself."""
_INTERVAL = 5.0
"""Seconds between two writes while a search runs."""


class BandFile:
    """The file of one path.

    Args:
        path: the file (.extxyz or .h5).
        ends: the geometries at both ends.
        n_images: number of images between them.
        level: level of theory of the engine.

    Raises:
        WriteError: the file cannot be written.
    """

    def __init__(self, path: Path, ends: tuple[Structure, Structure], n_images: int, level: str) -> None:
        self.path, self.ends, self.n_images, self.level = path, ends, n_images, level
        check_output_path(path)
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last write was long ago."""
        return time.monotonic() - self._written > _INTERVAL

    def read(self) -> list[Float[Array, "n 3"]] | None:
        """The positions of the images between the ends.

        Returns:
            Positions, Å; None where there is no file yet.

        Raises:
            RequestError: the file holds another path, or something else.
        """
        if not self.path.exists():
            return None
        held = read_dataset(self.path, check=False)
        whole = held.structures
        fits = len(whole) == self.n_images + 2 and held.metadata.get("level") == self.level
        fits = fits and all(np.array_equal(s.numbers, self.ends[0].numbers) for s in whole)
        if not fits or any(
            displacement(s, end).rmsd > _NEAR for s, end in zip((whole[0], whole[-1]), self.ends, strict=True)
        ):
            raise RequestError(
                f"{self.path} holds another path than this one (other ends, engine or number of images): remove it, or "
                "choose another file"
            )
        return [np.array(s.positions) for s in whole[1:-1]]

    def write(self, points: Sequence[PathPoint]) -> None:
        """Write the images. An interrupted call leaves the former file.

        Args:
            points: all images with the ends.

        Raises:
            WriteError: the file cannot be written.
        """
        pairs = [
            (
                p.structure,
                Properties.single(len(p.structure), energy=p.energy, forces=p.forces, structure_id=p.structure.id),
            )
            for p in points
        ]
        write_dataset(self.path, Dataset.from_pairs(pairs, level=self.level, made_by="nudged elastic band"))
        self._written = time.monotonic()
