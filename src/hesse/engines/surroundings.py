"""How fast the surroundings of each atom change along a direction: the scale on which forces stop being linear."""

from __future__ import annotations

import numpy as np
from ase.geometry import find_mic
from jaxtyping import Float

from hesse.structures import Structure

__all__ = ["relative_motion"]

_DECAY_LENGTH = 0.5
"""Å; neighbours farther than an atom's nearest by this much count 1/e."""


def relative_motion(structure: Structure, direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    """Root mean square, over the neighbours of each atom, of the change of their relative position along `direction`:
    of the distance, and of the angle times 1 Å. Å per unit of the direction. Zero where nothing moves against
    anything, as in a shift of the whole, and for an atom alone. Crystals: nearest images.
    """
    n = len(structure)
    vectors = structure.positions[:, None] - structure.positions[None]
    distances = np.linalg.norm(vectors, axis=2)
    if structure.periodic:
        flat, lengths = find_mic(vectors.reshape(-1, 3), structure.cell, structure.pbc)
        vectors, distances = flat.reshape(n, n, 3), lengths.reshape(n, n)
    others = ~np.eye(n, dtype=bool)
    if n == 1:
        return np.zeros(1)
    distances = np.where(others, distances, np.inf)
    nearest = distances.min(1, keepdims=True)
    weights = np.exp(-(distances - nearest) / _DECAY_LENGTH)
    relative = direction[:, None] - direction[None]
    stretch = (vectors * relative).sum(2) / distances
    rotation = np.maximum((relative**2).sum(2) - stretch**2, 0.0) / distances**2
    return np.sqrt((weights * (stretch**2 + rotation)).sum(1) / weights.sum(1))
