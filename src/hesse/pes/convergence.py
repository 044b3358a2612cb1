"""How a walk to a stationary point went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

__all__ = ["OptimizationHistory", "max_force"]


@dataclass(frozen=True, eq=False)
class OptimizationHistory:
    """Energies (eV) and largest forces (eV/Å) of every geometry a walk came through, the start first."""

    energies: Float[Array, "points"]
    fmax: Float[Array, "points"]

    @classmethod
    def from_points(cls, points: Sequence[tuple[float, float]]) -> OptimizationHistory:
        """From pairs of energy and largest force."""
        energies, largest = zip(*points, strict=True)
        return cls(np.array(energies), np.array(largest))

    def __len__(self) -> int:
        return len(self.energies)


def max_force(gradient: Float[Array, "n 3"]) -> float:
    """Length of the largest force on an atom, eV/Å."""
    return float(np.linalg.norm(gradient, axis=-1).max())
