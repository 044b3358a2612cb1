"""Which geometries are worth their labels: duplicates out, energies within a window, and the most different of what is
left.

Every step is deterministic and prefers structures that come first. Distances are those of `hesse.sampling.fingerprint`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, MissingLabelError
from hesse.sampling.fingerprint import composition_key, distance_fingerprint
from hesse.structures import Structure

__all__ = [
    "Rejected",
    "SelectionCriteria",
    "SelectionResult",
    "farthest_point_sampling",
    "select_structures",
    "unique_structures",
]

CHUNK = 256
"""Structures compared at once with all those kept: memory stays small, and the work is matrix products."""


@dataclass(frozen=True)
class SelectionCriteria:
    """What to keep; each step is left out when its value is None.

    Attributes:
        tolerance: Å; a structure closer than this to one kept before is a duplicate.
        window: eV above the lowest energy among structures of the same group and composition.
        per_group: at most so many structures of a group, the most different ones.
        count: at most so many structures in all, the most different ones.

    Raises:
        ConfigError: a value out of range, or nothing to do.
    """

    tolerance: float | None = 0.05
    energy_window: float | None = None
    per_group: int | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        for name, value, unit in (("tolerance", self.tolerance, "Å"), ("energy window", self.energy_window, "eV")):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigError(f"the {name} must be a positive number of {unit}, got {value}")
        for name, number in (("per group", self.per_group), ("in all", self.count)):
            if number is not None and number < 1:
                raise ConfigError(f"expected at least one structure to keep {name}, got {number}")
        if self.tolerance is None and self.energy_window is None and self.per_group is None and self.count is None:
            raise ConfigError("a selection needs a tolerance, an energy window, or a number of structures to keep")


@dataclass(frozen=True)
class Rejected:
    """A structure that was not kept.

    Attributes:
        id: its name.
        step: which step dropped it: "window", "duplicate", "per group" or "count".
        reason: why, in words.
    """

    id: str
    step: str
    reason: str


@dataclass(frozen=True)
class SelectionResult:
    """Attributes:
    kept: indices of the structures kept, in their order.
    dropped: the others, in the order of the steps.
    """

    selected: tuple[int, ...]
    rejected: tuple[Rejected, ...]


def select_structures(
    structures: Sequence[Structure], selection: SelectionCriteria | None = None, *, energies: ArrayLike | None = None
) -> SelectionResult:
    """Keep the structures of `selection`: first the energy window, then duplicates, then numbers.

    Args:
        energies: eV, one per structure; needed for a window. A structure whose energy is not finite is not kept then.

    Raises:
        MissingLabelError: a window without energies.
        ConfigError: another number of energies than of structures.
    """
    criteria = selection or SelectionCriteria()
    selected = np.arange(len(structures))
    rejected: list[Rejected] = []
    if criteria.energy_window is not None:
        selected, reasons = _within_window(structures, energies, criteria.energy_window)
        rejected += [Rejected(structures[i].id, "window", reason) for i, reason in reasons.items()]
    if criteria.tolerance is not None:
        duplicate_of = _duplicates(_take(structures, selected), criteria.tolerance)
        rejected += [
            Rejected(
                structures[i].id, "duplicate", f'within {criteria.tolerance:g} Å of "{structures[int(selected[t])].id}"'
            )
            for i, t in zip(selected.tolist(), duplicate_of, strict=True)
            if t >= 0
        ]
        selected = selected[duplicate_of < 0]
    if criteria.per_group is not None:
        groups = _indices_by(s.group or s.id for s in _take(structures, selected))
        per_group = [
            selected[m][farthest_point_sampling(_take(structures, selected[m]), criteria.per_group)]
            for m in groups.values()
        ]
        farthest = np.sort(np.concatenate([selected[:0], *per_group]))
        reason = f"the group has {criteria.per_group} that differ more"
        rejected += [Rejected(s.id, "per group", reason) for s in _take(structures, np.setdiff1d(selected, farthest))]
        selected = farthest
    if criteria.count is not None:
        farthest = np.sort(selected[farthest_point_sampling(_take(structures, selected), criteria.count)])
        reason = f"there are {criteria.count} that differ more"
        rejected += [Rejected(s.id, "count", reason) for s in _take(structures, np.setdiff1d(selected, farthest))]
        selected = farthest
    return SelectionResult(tuple(selected.tolist()), tuple(rejected))


def _take(structures: Sequence[Structure], indices: Int[Array, "some"]) -> list[Structure]:
    return [structures[i] for i in indices.tolist()]


def unique_structures(structures: Sequence[Structure], tolerance: float = 0.05) -> list[int]:
    """Indices of the structures that are further than `tolerance` Å from every one kept before them.

    Structures that differ in elements, charge, multiplicity or periodicity are never duplicates; mirror images always
    are. The cost is that of comparing every structure with those kept: a minute for 10⁵ molecules of 17 atoms, of one
    composition and all different.

    Raises:
        ConfigError: a tolerance that is not positive.
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ConfigError(f"the tolerance must be a positive number of Å, got {tolerance}")
    return np.flatnonzero(_duplicates(structures, tolerance) < 0).tolist()


def farthest_point_sampling(structures: Sequence[Structure], count: int) -> Int[Array, "chosen"]:
    """Indices of `count` structures (fewer if there are not so many), each as far as possible from those before it.

    The first structure starts. Structures of different composition are infinitely far apart, so one of each comes
    first. (Farthest-point traversal: Gonzalez, Theor. Comput. Sci. 38, 293 (1985).)
    """
    n = len(structures)
    composition, fingerprints = _fingerprints(structures)
    nearest = np.full(n, np.inf)
    chosen: list[int] = []
    while len(chosen) < min(count, n):
        new = int(nearest.argmax())
        chosen.append(new)
        members, values = composition[new]
        difference = values - fingerprints[new]
        nearest[members] = np.minimum(nearest[members], np.einsum("ij,ij->i", difference, difference))
        nearest[chosen] = -1.0  # not even a twin of itself is chosen twice
    return np.array(chosen, dtype=np.int64)


def _duplicates(structures: Sequence[Structure], tolerance: float) -> Int[Array, "structures"]:
    """For each structure the kept one it duplicates, or −1."""
    duplicate_of = np.full(len(structures), -1)
    for members in _indices_by(composition_key(s) for s in structures).values():
        values = np.array([distance_fingerprint(structures[i]) for i in members.tolist()])
        local_duplicate_of = _greedy_duplicates(values, tolerance * np.sqrt(max(values.shape[1], 1)))
        duplicate_of[members] = np.where(local_duplicate_of < 0, -1, members[local_duplicate_of])
    return duplicate_of


def _greedy_duplicates(values: Float[Array, "points dims"], radius: float) -> Int[Array, "points"]:
    """For each point the first kept point within `radius`, or −1 for a point that is kept itself."""
    centered = values - values.mean(0)  # so that squares lose no digits
    duplicate_of = np.full(len(values), -1)
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(values), CHUNK):
        block = np.arange(start, min(start + CHUNK, len(values)))
        for others in range(0, len(kept), 16 * CHUNK):
            earlier = kept[others : others + 16 * CHUNK]
            free = block[duplicate_of[block] < 0]
            near = _squared_distances(centered[free], centered[earlier]) <= radius**2
            hit = near.any(1)
            duplicate_of[free[hit]] = earlier[near[hit].argmax(1)]
        within = _squared_distances(centered[block], centered[block]) <= radius**2
        for k, i in enumerate(block.tolist()):
            if duplicate_of[i] < 0:
                later = block[k + 1 :][within[k, k + 1 :]]
                duplicate_of[later[duplicate_of[later] < 0]] = i
        kept = np.concatenate([kept, block[duplicate_of[block] < 0]])
    return duplicate_of


def _squared_distances(
    points: Float[Array, "some dims"], others: Float[Array, "others dims"]
) -> Float[Array, "some others"]:
    squares = np.einsum("ij,ij->i", points, points)[:, None] + np.einsum("ij,ij->i", others, others)
    return squares - 2.0 * points @ others.T


def _fingerprints(
    structures: Sequence[Structure],
) -> tuple[dict[int, tuple[Int[Array, "members"], Float[Array, "members dims"]]], dict[int, Float[Array, "dims"]]]:
    """For each structure its composition (indices and fingerprints of all its members), and its own fingerprint."""
    composition, fingerprints = {}, {}
    for members in _indices_by(composition_key(s) for s in structures).values():
        values = np.array([distance_fingerprint(structures[i]) for i in members.tolist()])
        values = values / np.sqrt(max(values.shape[1], 1))
        for k, i in enumerate(members.tolist()):
            composition[i], fingerprints[i] = (members, values), values[k]
    return composition, fingerprints


def _within_window(
    structures: Sequence[Structure], energies: ArrayLike | None, window: float
) -> tuple[Int[Array, "inside"], dict[int, str]]:
    if energies is None:
        raise MissingLabelError("an energy window needs energies: label the structures first, or leave the window out")
    values = np.asarray(energies, dtype=np.float64)
    if values.shape != (len(structures),):
        raise ConfigError(f"expected one energy for each of {len(structures)} structures, got {values.shape}")
    reasons: dict[int, str] = {}
    # Energies of different compositions cannot be compared, not even within a reaction.
    for members in _indices_by((s.group or s.id, composition_key(s)) for s in structures).values():
        finite = members[np.isfinite(values[members])]
        lowest = values[finite].min() if len(finite) else np.nan
        for i in members.tolist():
            above = values[i] - lowest
            if not np.isfinite(above):
                reasons[i] = "no energy"
            elif above > window:
                reasons[i] = f"{above:.3g} eV above the lowest of its group, more than {window:g} eV"
    inside = [i for i in range(len(structures)) if i not in reasons]
    return np.array(inside, dtype=np.int64), dict(sorted(reasons.items()))


def _indices_by(keys: Iterable[Hashable]) -> dict[Hashable, Int[Array, "members"]]:
    members = defaultdict(list)
    for i, key in enumerate(keys):
        members[key].append(i)
    return {key: np.array(indices, dtype=np.int64) for key, indices in members.items()}
