"""Selection of geometries for labeling: an energy window, removal of duplicates, and the most different structures.

Every step is deterministic and prefers structures that come first. Distances are those of `hesse.sampling.fingerprint`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from hesse.datasets import Dataset, StructuresLike, as_dataset, as_structures
from hesse.errors import ConfigError, MissingLabelError
from hesse.runtime.settings import Settings, settings_from
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
"""Number of structures that are compared at once with the selected ones: limits memory and allows matrix products."""


class SelectionCriteria(Settings):
    """Criteria of a selection; a criterion that is None does not apply.

    Attributes:
        tolerance: a structure closer than this to one selected before is a duplicate, Å.
        energy_window: largest energy above the lowest of the same group and composition, eV.
        per_group: maximal number of structures of a group; the most different ones are selected.
        count: maximal number of structures in total; the most different ones are selected.

    Raises:
        ConfigError: a value out of range, or no criterion at all.
    """

    tolerance: float | None = Field(0.05, gt=0)
    energy_window: float | None = Field(None, gt=0)
    per_group: int | None = Field(None, ge=1)
    count: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_any(self) -> SelectionCriteria:
        if self.tolerance is None and self.energy_window is None and self.per_group is None and self.count is None:
            raise ValueError("a selection needs a tolerance, an energy window, or a number of structures to keep")
        return self


@dataclass(frozen=True)
class Rejected:
    """A structure that was not selected.

    Attributes:
        id: its id.
        step: the criterion that rejected it: "window", "duplicate", "per group" or "count".
        reason: the reason as text.
    """

    id: str
    step: str
    reason: str


@dataclass(frozen=True)
class SelectionResult:
    """The result of a selection.

    Attributes:
        selected: indices of the selected structures, in their order.
        rejected: the other structures, in the order of the criteria.
    """

    selected: tuple[int, ...]
    rejected: tuple[Rejected, ...]


def select_structures(
    structures: StructuresLike,
    selection: SelectionCriteria | None = None,
    *,
    energies: ArrayLike | None = None,
    **options: Any,
) -> SelectionResult:
    """Select structures: first by the energy window, then duplicates are removed, then numbers are limited.

    Args:
        structures: ASE Atoms, a list of them or of Structures, a Dataset, or the path of a file.
        selection: the criteria; by default duplicates within 0.05 Å are removed.
        energies: eV, one per structure, for an energy window; those of the Dataset by default. A structure whose energy
            is not finite is rejected.
        **options: the fields of `SelectionCriteria` in place of `selection`.

    Returns:
        Indices of the selected structures, and the rejected ones with reasons.

    Raises:
        MissingLabelError: an energy window without energies.
        ConfigError: the number of energies differs from that of the structures.
    """
    criteria = settings_from(SelectionCriteria, selection, options)
    source = as_dataset(structures) if isinstance(structures, str | Path) else structures
    if energies is None and isinstance(source, Dataset) and source.labels.energy is not None:
        energies = source.labels.energy.where(source.labels.mask("energy"), float("nan")).numpy()
    structures = _structures(source)
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


def _structures(structures: StructuresLike) -> Sequence[Structure]:
    """The structures; an empty list is allowed."""
    return () if isinstance(structures, list | tuple) and not structures else as_structures(structures)


def _take(structures: Sequence[Structure], indices: Int[Array, "some"]) -> list[Structure]:
    return [structures[i] for i in indices.tolist()]


def unique_structures(structures: StructuresLike, tolerance: float = 0.05) -> list[int]:
    """Find the structures that are not duplicates of earlier ones.

    Structures that differ in elements, charge, multiplicity or periodicity are never duplicates; mirror images always
    are. Every structure is compared with all that were selected before it: a minute for 10⁵ molecules of 17 atoms, of
    one composition and all different.

    Args:
        structures: ASE Atoms, a list of them or of Structures, a Dataset, or the path of a file.
        tolerance: largest distance of duplicates, Å.

    Returns:
        Indices of the structures that are further than `tolerance` from every one selected before them.

    Raises:
        ConfigError: the tolerance is not positive.
    """
    structures = _structures(structures)
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ConfigError(f"the tolerance must be a positive number of Å, got {tolerance}")
    return np.flatnonzero(_duplicates(structures, tolerance) < 0).tolist()


def farthest_point_sampling(structures: StructuresLike, count: int) -> Int[Array, "count"]:
    """Select the most different structures, each as far as possible from those selected before it.

    The first structure is selected first. Structures of different composition are infinitely far apart, so one of each
    is selected before a second one. Farthest-point traversal: Gonzalez, Theor. Comput. Sci. 38, 293 (1985).

    Args:
        structures: ASE Atoms, a list of them or of Structures, a Dataset, or the path of a file.
        count: number of structures to select.

    Returns:
        Indices of `count` structures in the order of selection, or of all where there are fewer.
    """
    structures = _structures(structures)
    n = len(structures)
    composition, fingerprints = _fingerprints(structures)
    nearest = np.full(n, np.inf)
    selected: list[int] = []
    while len(selected) < min(count, n):
        new = int(nearest.argmax())
        selected.append(new)
        members, values = composition[new]
        difference = values - fingerprints[new]
        nearest[members] = np.minimum(nearest[members], np.einsum("ij,ij->i", difference, difference))
        nearest[selected] = -1.0  # never selected again, not even where all others are its duplicates
    return np.array(selected, dtype=np.int64)


def _duplicates(structures: Sequence[Structure], tolerance: float) -> Int[Array, "structures"]:
    """For each structure the index of the selected one that it duplicates, or −1."""
    duplicate_of = np.full(len(structures), -1)
    for members in _indices_by(composition_key(s) for s in structures).values():
        values = np.array([distance_fingerprint(structures[i]) for i in members.tolist()])
        local_duplicate_of = _greedy_duplicates(values, tolerance * np.sqrt(max(values.shape[1], 1)))
        duplicate_of[members] = np.where(local_duplicate_of < 0, -1, members[local_duplicate_of])
    return duplicate_of


def _greedy_duplicates(values: Float[Array, "points dims"], radius: float) -> Int[Array, "points"]:
    """For each point the first selected point within `radius`, or −1 where the point itself is selected."""
    centered = values - values.mean(0)  # keeps squares small, against loss of digits
    duplicate_of = np.full(len(values), -1)
    selected = np.zeros(0, dtype=np.int64)
    for start in range(0, len(values), CHUNK):
        block = np.arange(start, min(start + CHUNK, len(values)))
        for others in range(0, len(selected), 16 * CHUNK):
            earlier = selected[others : others + 16 * CHUNK]
            free = block[duplicate_of[block] < 0]
            near = _squared_distances(centered[free], centered[earlier]) <= radius**2
            hit = near.any(1)
            duplicate_of[free[hit]] = earlier[near[hit].argmax(1)]
        within = _squared_distances(centered[block], centered[block]) <= radius**2
        for k, i in enumerate(block.tolist()):
            if duplicate_of[i] < 0:
                later = block[k + 1 :][within[k, k + 1 :]]
                duplicate_of[later[duplicate_of[later] < 0]] = i
        selected = np.concatenate([selected, block[duplicate_of[block] < 0]])
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
