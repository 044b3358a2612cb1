"""Results of an engine that are kept in files as they come, so that the same work continues after an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray as Array

from hesse.engines import Engine
from hesse.runtime.filesystem import atomic_write
from hesse.structures import Structure

__all__ = ["KeptResults"]


class KeptResults:
    """Arrays by what they were computed from: the engine with its settings, a supercell, and an array of inputs.

    Args:
        folder: where files are kept; None keeps nothing.
        engine: the engine.
        supercell: the supercell.
    """

    def __init__(self, folder: str | Path | None, engine: Engine, supercell: Structure) -> None:
        self._folder = None if folder is None else Path(folder)
        self._base = f"{engine.level} {sorted(engine.settings.items())}".encode()
        self._base += supercell.positions.tobytes() + supercell.cell.tobytes() + supercell.numbers.tobytes()

    def get(self, kind: str, inputs: Array, compute: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """Results from their file, or computed and written to it.

        Args:
            kind: name of the results.
            inputs: what they depend on; differences below 1e-10 do not count.
            compute: computes them.

        Returns:
            Arrays by name.

        Raises:
            WriteError: the file cannot be written.
        """
        if self._folder is None:
            return compute()
        digest = hashlib.sha256(kind.encode() + np.round(inputs, 10).tobytes() + self._base)
        file = self._folder / f"{digest.hexdigest()[:32]}.npz"
        if file.exists():
            with np.load(file, allow_pickle=False) as stored:
                return dict(stored)
        results = compute()
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as path, open(path, "wb") as handle:
            np.savez(handle, allow_pickle=False, **results)
        return results
