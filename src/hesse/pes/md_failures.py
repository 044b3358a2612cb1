"""When a run of molecular dynamics counts as failed: criteria, and the reasons as an enumeration.

`jctc2025`: the distance of any pair of atoms, averaged over 50 steps, leaves 0.75 to 1.5 times its value in the
starting geometry (arXiv 2503.07839). A true dissociation, and a rotation that brings atoms of a molecule far apart,
count as failures too. `fast`: a bond leaves 0.5 to 1.5 times its starting length, two atoms come closer than 0.6 of
their covalent radii (two beads: than half the closest distance of their types in data), or a force exceeds 100 eV/Å.
Numbers that are not finite and engines that fail always count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.pes.geometry_changes import atom_name
from hesse.structures import Contacts, Structure, bonded_pairs, collision_distances, find_neighbors

__all__ = ["CRITERIA", "Failure", "FailureCriterion", "FailureMonitor", "FailureReason"]

FailureCriterion = Literal["jctc2025", "fast", "none"]
CRITERIA = ("jctc2025", "fast", "none")

WINDOW = 50
"""Steps over which distances are averaged. The windows follow each other without overlap."""
MEAN_DISTANCE = (0.75, 1.5)
BOND_LENGTH = (0.5, 1.5)
MAX_FORCE = 100.0
"""eV/Å."""
PERIODIC_RANGE = 6.0
"""Å; pairs of periodic structures up to this distance at the start are watched. Of molecules, all pairs are."""


class FailureReason(StrEnum):
    """Why a replica failed.

    The first six are failures of the dynamics. `BONDS_CHANGED` happens in the relaxation before it and counts as a
    failure at time zero. The last two are not counted in survival curves: there is no dynamics to judge.
    """

    PAIR_DISTANCE = "pair distance"
    BOND_LENGTH = "bond length"
    COLLISION = "collision"
    LARGE_FORCE = "large force"
    NOT_FINITE = "not finite"
    ENGINE_FAILED = "engine failed"
    BONDS_CHANGED = "bonds changed in relaxation"
    NOT_RELAXED = "not relaxed"
    NOT_STARTED = "not started"

    @property
    def counted(self) -> bool:
        """Whether it counts as a failure of the potential in survival curves."""
        return self not in (FailureReason.NOT_RELAXED, FailureReason.NOT_STARTED)


@dataclass(frozen=True)
class Failure:
    """The failure of a replica.

    Attributes:
        reason: the kind.
        detail: what happened, as a text.
    """

    reason: FailureReason
    detail: str

    @classmethod
    def not_started(cls, detail: str) -> Failure:
        """A replica without dynamics.

        Args:
            detail: why.

        Returns:
            The failure.
        """
        return cls(FailureReason.NOT_STARTED, detail)

    @classmethod
    def of_engine(cls, detail: str) -> Failure:
        """A replica whose engine failed.

        Args:
            detail: what the engine said.

        Returns:
            The failure.
        """
        return cls(FailureReason.ENGINE_FAILED, detail)


class FailureMonitor:
    """Watches replicas and tells which of them fail.

    Args:
        criterion: "jctc2025", "fast" or "none" (only numbers that are not finite).
        starts: the starting geometry of each replica, to which distances are compared.
        device: device of the positions.
        contacts: closest distances of bead types in data, for "fast".
    """

    def __init__(
        self,
        criterion: FailureCriterion,
        starts: Sequence[Structure],
        device: torch.device | str = "cpu",
        *,
        contacts: Contacts | None = None,
    ) -> None:
        self.criterion, self.starts, self.device = criterion, list(starts), device
        pairs = [_watched_pairs(s, criterion, contacts) for s in self.starts]
        n_atoms = np.array([len(s) for s in self.starts])
        firsts = np.cumsum(n_atoms) - n_atoms

        def joined(values: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(values)).to(self.device)

        self._index = joined([np.full(n, i) for i, n in enumerate(n_atoms)])
        self._first = joined([p.first + f for p, f in zip(pairs, firsts, strict=True)])
        self._second = joined([p.second + f for p, f in zip(pairs, firsts, strict=True)])
        self._shift = joined([p.shift for p in pairs])
        self._start = joined([p.length for p in pairs])
        self._low = joined([p.low for p in pairs])
        self._high = joined([p.high for p in pairs])
        self._pair_replica = joined([np.full(len(p.first), i) for i, p in enumerate(pairs)])
        self._sum = torch.zeros_like(self._start)
        self._firsts = firsts

    def check(
        self,
        step: int,
        positions: Float[Tensor, "atoms 3"],
        energies: Float[Tensor, "replicas"],
        forces: Float[Tensor, "atoms 3"],
    ) -> dict[int, Failure]:
        """Look at all replicas after a step.

        Args:
            step: number of the step, the first one is 1.
            positions: Å.
            energies: eV.
            forces: eV/Å.

        Returns:
            The failures by index of the replica.
        """
        failures = self.not_finite(positions, energies, forces)
        if self.criterion == "none":
            return failures
        vectors = positions[self._first] - positions[self._second] - self._shift
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        if self.criterion == "jctc2025":
            self._sum += distances
            if step % WINDOW:
                return failures
            means, self._sum = self._sum / WINDOW, torch.zeros_like(self._sum)
            self._add_pairs(failures, means, FailureReason.PAIR_DISTANCE)
            return failures
        self._add_pairs(failures, distances, None)
        sizes = torch.linalg.vector_norm(forces, dim=-1)
        for atom in torch.nonzero(sizes > MAX_FORCE)[:, 0].tolist():
            i = int(self._index[atom])
            name = atom_name(self.starts[i], atom - int(self._firsts[i]))
            text = f"a force of {float(sizes[atom]):.3g} eV/Å on {name}, more than {MAX_FORCE:g}"
            failures.setdefault(i, Failure(FailureReason.LARGE_FORCE, text))
        return failures

    def not_finite(
        self, positions: Float[Tensor, "atoms 3"], energies: Float[Tensor, "replicas"], forces: Float[Tensor, "atoms 3"]
    ) -> dict[int, Failure]:
        """Replicas whose energies, forces or positions are not finite numbers.

        Args:
            positions: Å.
            energies: eV.
            forces: eV/Å.

        Returns:
            The failures by index of the replica.
        """
        total = energies.sum() + forces.sum() + positions.sum()
        if bool(torch.isfinite(total)):
            return {}
        bad_atoms = ~(torch.isfinite(forces).all(-1) & torch.isfinite(positions).all(-1))
        bad = set(torch.nonzero(~torch.isfinite(energies))[:, 0].tolist()) | set(self._index[bad_atoms].tolist())
        text = "energy, forces or positions are not finite numbers"
        return {i: Failure(FailureReason.NOT_FINITE, text) for i in sorted(bad)}

    def _add_pairs(
        self, failures: dict[int, Failure], distances: Float[Tensor, "pairs"], reason: FailureReason | None
    ) -> None:
        """Add the replicas with a pair outside of its limits; the worst pair of each is told."""
        bad: Bool[Tensor, "pairs"] = (distances < self._low) | (distances > self._high)
        if not bool(bad.any()):
            return
        pairs: Int[Tensor, "bad"] = torch.nonzero(bad)[:, 0]
        ratios = torch.log(distances[pairs] / self._start[pairs]).abs()
        for k in ratios.argsort(descending=True).tolist():
            p = int(pairs[k])
            i = int(self._pair_replica[p])
            if i in failures:
                continue
            start, first = self.starts[i], int(self._firsts[i])
            names = [atom_name(start, int(atom[p]) - first) for atom in (self._first, self._second)]
            length, before = float(distances[p]), float(self._start[p])
            what = reason or (FailureReason.BOND_LENGTH if length > before else FailureReason.COLLISION)
            mean = f", mean of {WINDOW} steps" if what is FailureReason.PAIR_DISTANCE else ""
            text = f"{names[0]} and {names[1]} are {length:.2f} Å apart{mean}; {before:.2f} Å at the start"
            failures[i] = Failure(what, text)


@dataclass(frozen=True, eq=False)
class _WatchedPairs:
    """Pairs of atoms of one replica, the displacement of periodic images, and the limits of their distances (Å)."""

    first: Int[np.ndarray, "pairs"]
    second: Int[np.ndarray, "pairs"]
    shift: Float[np.ndarray, "pairs 3"]
    length: Float[np.ndarray, "pairs"]
    low: Float[np.ndarray, "pairs"]
    high: Float[np.ndarray, "pairs"]


def _watched_pairs(start: Structure, criterion: FailureCriterion, contacts: Contacts | None) -> _WatchedPairs:
    """The pairs of a starting geometry with the limits of a criterion."""
    if start.periodic:
        reach = max([PERIODIC_RANGE, *(1.5 * closest for closest in (contacts or {}).values())])
        neighbors = find_neighbors(start.positions, start.cell, start.pbc, reach)
        once = (neighbors.centers < neighbors.neighbors) | (
            (neighbors.centers == neighbors.neighbors) & (neighbors.cell_shifts > 0).any(-1)
        )
        first, second = neighbors.centers[once], neighbors.neighbors[once]
        shift, length = neighbors.cell_shifts[once] @ start.cell, neighbors.distances[once]
    else:
        first, second = np.triu_indices(len(start), 1)
        shift = np.zeros((len(first), 3))
        length = np.linalg.norm(start.positions[first] - start.positions[second], axis=-1)
    if criterion == "jctc2025":
        return _WatchedPairs(first, second, shift, length, MEAN_DISTANCE[0] * length, MEAN_DISTANCE[1] * length)
    low = collision_distances(start.numbers[first], start.numbers[second], contacts)
    high = np.full(len(first), np.inf)
    bonds = {(int(i), int(j)) for i, j in bonded_pairs(start)}
    plain = ~shift.any(-1)
    bonded = np.array([(int(i), int(j)) in bonds for i, j in zip(first, second, strict=True)], dtype=bool) & plain
    low[bonded] = np.maximum(low[bonded], BOND_LENGTH[0] * length[bonded])
    high[bonded] = BOND_LENGTH[1] * length[bonded]
    return _WatchedPairs(first, second, shift, length, low, high)
