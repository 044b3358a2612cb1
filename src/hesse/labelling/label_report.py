"""What a campaign made, and what it did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hesse.datasets import Dataset

__all__ = ["Failure", "LabelReport", "Suspect", "group_by_reason"]

_MAX_IDS = 3
"""Structures named for each reason."""


@dataclass(frozen=True)
class Failure:
    """A structure without labels, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Suspect:
    """A structure whose labels failed a check: what is wrong, a colon, and by how much."""

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class LabelReport:
    """What a campaign made.

    Attributes:
        dataset: the labeled structures, in the order asked; suspect ones are flagged.
        failures: the others.
        suspects: those of the labeled structures that are not to be believed.
        reused: structures for which nothing had to be asked.
        topped_up: structures of which a part was there.
        seconds: wall time of this run.
        engine_seconds: summed over the structures: of the last attempt at each, in whatever run.
    """

    dataset: Dataset
    failures: tuple[Failure, ...]
    suspects: tuple[Suspect, ...]
    n_reused: int
    n_partial: int
    seconds: float
    engine_seconds: float

    def failures_by_reason(self) -> list[tuple[int, str]]:
        """How often each reason occurs and the first ids it befell, most frequent first."""
        return group_by_reason(self.failures)

    def suspects_by_reason(self) -> list[tuple[int, str]]:
        """The same for suspects, whatever the numbers in their reasons."""
        return group_by_reason([Suspect(s.id, s.reason.partition(":")[0]) for s in self.suspects])


def group_by_reason(entries: Sequence[Failure | Suspect]) -> list[tuple[int, str]]:
    """How often each reason occurs and the first ids it befell, most frequent first."""
    ids_by_reason: dict[str, list[str]] = {}
    for entry in entries:
        ids_by_reason.setdefault(entry.reason.replace(f'structure "{entry.id}": ', ""), []).append(entry.id)
    groups = []
    for reason, members in sorted(ids_by_reason.items(), key=lambda item: -len(item[1])):
        names = ", ".join(f'"{name}"' for name in members[:_MAX_IDS]) + (", ..." if len(members) > _MAX_IDS else "")
        groups.append((len(members), f"{reason} ({names})"))
    return groups
