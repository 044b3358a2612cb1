"""How near beads come in data, which tells an ordinary contact of beads from a collision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hesse.structures import Structure, find_neighbors, is_bead, species_name

__all__ = ["closest_contacts"]

_REACH: Final = 6.0
"""Å; contacts beyond are not sought."""
_BEADS: Final = 100_000
"""Number of beads of all frames that are looked at, in 20 to 200 frames."""


def closest_contacts(structures: Sequence[Structure]) -> tuple[tuple[str, str, float], ...]:
    """The closest distance of each pair of bead types.

    Args:
        structures: frames of data. Up to 200 of them, evenly spread, and the last one of each state point are looked
            at.

    Returns:
        Names of two types and Å, rounded down to 0.001, for each pair that comes closer than 6 Å.
    """
    frames = list(structures)
    if not frames:
        return ()
    count = int(np.clip(_BEADS // max(len(frames[0]), 1), 20, 200))
    last = {structure.tag: structure for structure in frames}
    chosen = {id(s): s for s in (*frames[:: -(-len(frames) // count)], *last.values())}
    closest: dict[tuple[int, int], float] = {}
    for structure in chosen.values():
        pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, _REACH)
        ends = np.stack([structure.numbers[pairs.centers], structure.numbers[pairs.neighbors]], axis=1)
        kinds, inverse = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
        for k, (a, b) in enumerate(kinds.tolist()):
            nearest = float(pairs.distances[inverse.ravel() == k].min())
            closest[a, b] = min(nearest, closest.get((a, b), np.inf))
    return tuple(
        (species_name(a), species_name(b), float(np.floor(1e3 * distance) / 1e3))
        for (a, b), distance in sorted(closest.items())
        if is_bead([a, b]).all()
    )
