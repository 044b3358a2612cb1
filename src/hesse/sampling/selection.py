"""Which geometries are worth their labels: duplicates out, energies within a window, and the most different of what is
left.

Every step is deterministic and prefers structures that come first. Distances are those of `hesse.sampling.descriptor`.
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
from hesse.sampling.descriptor import composition_key, distance_fingerprint
from hesse.structures import Structure

__all__ = ["Dropped", "Selection", "SelectionResult", "distinct", "farthest_points", "select_structures"]

BLOCK = 256
"""Structures compared at once with all those kept: memory stays small, and the work is matrix products."""


@dataclass(frozen=True)
class Selection:
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
    window: float | None = None
    per_group: int | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        for name, value, unit in (("tolerance", self.tolerance, "Å"), ("energy window", self.window, "eV")):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigError(f"the {name} must be a positive number of {unit}, got {value}")
        for name, number in (("per group", self.per_group), ("in all", self.count)):
            if number is not None and number < 1:
                raise ConfigError(f"expected at least one structure to keep {name}, got {number}")
        if self.tolerance is None and self.window is None and self.per_group is None and self.count is None:
            raise ConfigError("a selection needs a tolerance, an energy window, or a number of structures to keep")


@dataclass(frozen=True)
class Dropped:
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

    kept: tuple[int, ...]
    dropped: tuple[Dropped, ...]


def select_structures(
    structures: Sequence[Structure], selection: Selection | None = None, *, energies: ArrayLike | None = None
) -> SelectionResult:
    """Keep the structures of `selection`: first the energy window, then duplicates, then numbers.

    Args:
        energies: eV, one per structure; needed for a window. A structure whose energy is not finite is not kept then.

    Raises:
        MissingLabelError: a window without energies.
        ConfigError: another number of energies than of structures.
    """
    asked = selection or Selection()
    kept = np.arange(len(structures))
    dropped: list[Dropped] = []
    if asked.window is not None:
        kept, reasons = _within_window(structures, energies, asked.window)
        dropped += [Dropped(structures[i].id, "window", reason) for i, reason in reasons.items()]
    if asked.tolerance is not None:
        twins = _twins(_chosen(structures, kept), asked.tolerance)
        dropped += [
            Dropped(structures[i].id, "duplicate", f'within {asked.tolerance:g} Å of "{structures[int(kept[t])].id}"')
            for i, t in zip(kept.tolist(), twins, strict=True)
            if t >= 0
        ]
        kept = kept[twins < 0]
    if asked.per_group is not None:
        groups = _indices_by(s.group or s.id for s in _chosen(structures, kept))
        parts = [kept[m][farthest_points(_chosen(structures, kept[m]), asked.per_group)] for m in groups.values()]
        most = np.sort(np.concatenate([kept[:0], *parts]))
        reason = f"the group has {asked.per_group} that differ more"
        dropped += [Dropped(s.id, "per group", reason) for s in _chosen(structures, np.setdiff1d(kept, most))]
        kept = most
    if asked.count is not None:
        most = np.sort(kept[farthest_points(_chosen(structures, kept), asked.count)])
        reason = f"there are {asked.count} that differ more"
        dropped += [Dropped(s.id, "count", reason) for s in _chosen(structures, np.setdiff1d(kept, most))]
        kept = most
    return SelectionResult(tuple(kept.tolist()), tuple(dropped))


def _chosen(structures: Sequence[Structure], indices: Int[Array, "some"]) -> list[Structure]:
    return [structures[i] for i in indices.tolist()]


def distinct(structures: Sequence[Structure], tolerance: float = 0.05) -> list[int]:
    """Indices of the structures that are further than `tolerance` Å from every one kept before them.

    Structures that differ in elements, charge, multiplicity or periodicity are never duplicates; mirror images always
    are. The cost is that of comparing every structure with those kept: a minute for 10⁵ molecules of 17 atoms, of one
    composition and all different.

    Raises:
        ConfigError: a tolerance that is not positive.
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ConfigError(f"the tolerance must be a positive number of Å, got {tolerance}")
    return np.flatnonzero(_twins(structures, tolerance) < 0).tolist()


def farthest_points(structures: Sequence[Structure], count: int) -> Int[Array, "chosen"]:
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


def _twins(structures: Sequence[Structure], tolerance: float) -> Int[Array, "structures"]:
    """For each structure the kept one it duplicates, or −1."""
    found = np.full(len(structures), -1)
    for members in _indices_by(composition_key(s) for s in structures).values():
        values = np.array([distance_fingerprint(structures[i]) for i in members.tolist()])
        twins = _greedy_twins(values, tolerance * np.sqrt(max(values.shape[1], 1)))
        found[members] = np.where(twins < 0, -1, members[twins])
    return found


def _greedy_twins(values: Float[Array, "points dims"], radius: float) -> Int[Array, "points"]:
    """For each point the first kept point within `radius`, or −1 for a point that is kept itself."""
    centred = values - values.mean(0)  # so that squares lose no digits
    twin = np.full(len(values), -1)
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(values), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(values)))
        for others in range(0, len(kept), 16 * BLOCK):
            earlier = kept[others : others + 16 * BLOCK]
            free = block[twin[block] < 0]
            near = _squared_distances(centred[free], centred[earlier]) <= radius**2
            hit = near.any(1)
            twin[free[hit]] = earlier[near[hit].argmax(1)]
        within = _squared_distances(centred[block], centred[block]) <= radius**2
        for k, i in enumerate(block.tolist()):
            if twin[i] < 0:
                later = block[k + 1 :][within[k, k + 1 :]]
                twin[later[twin[later] < 0]] = i
        kept = np.concatenate([kept, block[twin[block] < 0]])
    return twin


def _squared_distances(
    some: Float[Array, "some dims"], others: Float[Array, "others dims"]
) -> Float[Array, "some others"]:
    squares = np.einsum("ij,ij->i", some, some)[:, None] + np.einsum("ij,ij->i", others, others)
    return squares - 2.0 * some @ others.T


def _fingerprints(
    structures: Sequence[Structure],
) -> tuple[dict[int, tuple[Int[Array, "members"], Float[Array, "members dims"]]], dict[int, Float[Array, "dims"]]]:
    """For each structure its composition (indices and fingerprints of all its members), and its own fingerprint."""
    composition, own = {}, {}
    for members in _indices_by(composition_key(s) for s in structures).values():
        values = np.array([distance_fingerprint(structures[i]) for i in members.tolist()])
        values = values / np.sqrt(max(values.shape[1], 1))
        for k, i in enumerate(members.tolist()):
            composition[i], own[i] = (members, values), values[k]
    return composition, own


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
