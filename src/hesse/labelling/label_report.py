"""Report of a campaign: the labeled structures, the failures and the suspect labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hesse.datasets import Dataset
from hesse.runtime.progress import format_duration

__all__ = ["Failure", "LabelReport", "Suspect", "group_by_reason"]

_MAX_IDS = 3
"""Number of ids listed for each reason."""


@dataclass(frozen=True)
class Failure:
    """A structure without labels.

    Attributes:
        id: id of the structure.
        reason: why it has none.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class Suspect:
    """A structure whose labels failed a check.

    Attributes:
        id: id of the structure.
        reason: the failed check, a colon, and the size of the violation.
    """

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class LabelReport:
    """The result of a campaign.

    Attributes:
        dataset: the labeled structures, in the order given; suspect ones are flagged.
        failures: the structures without labels.
        suspects: the labeled structures whose labels failed a check.
        n_reused: number of structures that needed no computation.
        n_partial: number of structures that had some of their quantities before.
        seconds: wall time of this run, s.
        engine_seconds: engine time, s, summed over the structures: that of the last attempt at each, in any run.
        notes: what was found in the ledger (damaged records, or records without checksums), requested quantities
            that were left out for structures that have none, and what an existing output file held that the new one
            does not.
    """

    dataset: Dataset
    failures: tuple[Failure, ...]
    suspects: tuple[Suspect, ...]
    n_reused: int
    n_partial: int
    seconds: float
    engine_seconds: float
    notes: tuple[str, ...] = ()

    def curvature_errors(self) -> dict[str, tuple[float, float]]:
        """Error estimates of the curvature of structures that are not suspect.

        Returns:
            Median and largest error in eV/Å², for "hvp" and "hessian" where they were computed.
        """
        labels = self.dataset.labels
        trusted = ~labels.suspect_mask()
        result = {}
        for name, error in (("hvp", labels.hvp_error), ("hessian", labels.hessian_error)):
            if error is not None and bool(trusted.any()):
                errors = error[..., trusted]
                result[name] = (float(errors.nanmedian()), float(errors.nan_to_num(0.0).max()))
        return result

    def table(self) -> str:
        """Format as text.

        Returns:
            Numbers of structures, error estimates and times; below them the reasons of failures and suspect labels.
        """
        level = self.dataset.metadata.get("level", "")
        rows = [
            ("labeled", f"{len(self.dataset)} structures ({level}), {self.n_reused} of them before"),
            ("failed", f"{len(self.failures)} structures"),
            ("suspect", f"{len(self.suspects)} structures"),
            *(
                (f"{name} error", f"median {median:.1e}, largest {largest:.1e} eV/Å²")
                for name, (median, largest) in self.curvature_errors().items()
            ),
            (
                "time",
                f"{format_duration(self.seconds)}; {format_duration(self.engine_seconds)} of engine time in total",
            ),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {text}" for name, text in rows]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"failed: {count} x {reason}" for count, reason in self.failures_by_reason()]
        lines += [f"suspect: {count} x {reason}" for count, reason in self.suspects_by_reason()]
        return "\n".join(lines)

    def failures_by_reason(self) -> list[tuple[int, str]]:
        """Group the failures by their reason.

        Returns:
            Pairs of a count and a text with the reason and the first ids, the most frequent first.
        """
        return group_by_reason(self.failures)

    def suspects_by_reason(self) -> list[tuple[int, str]]:
        """Group the suspect structures by the check that failed, whatever the size of the violation.

        Returns:
            Pairs of a count and a text with the check and the first ids, the most frequent first.
        """
        return group_by_reason([Suspect(s.id, s.reason.partition(":")[0]) for s in self.suspects])


def group_by_reason(entries: Sequence[Failure | Suspect]) -> list[tuple[int, str]]:
    """Group failures or suspects by their reason.

    Args:
        entries: failures or suspects.

    Returns:
        Pairs of a count and a text with the reason and the first ids, the most frequent first.
    """
    ids_by_reason: dict[str, list[str]] = {}
    for entry in entries:
        ids_by_reason.setdefault(entry.reason.replace(f'structure "{entry.id}": ', ""), []).append(entry.id)
    groups = []
    for reason, members in sorted(ids_by_reason.items(), key=lambda item: -len(item[1])):
        names = ", ".join(f'"{name}"' for name in members[:_MAX_IDS]) + (", ..." if len(members) > _MAX_IDS else "")
        groups.append((len(members), f"{reason} ({names})"))
    return groups
