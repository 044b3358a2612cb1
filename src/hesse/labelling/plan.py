"""What a campaign still has to ask, and about how long that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hesse.labelling.ledger import Attempt, StructureKey, geometry_digest
from hesse.labelling.spec import HESSIAN, LabelSpec, quantity_kind
from hesse.structures import Structure

__all__ = ["LabelPlan", "PendingStructure", "make_plan"]


@dataclass(frozen=True)
class PendingStructure:
    """A structure that is asked for something: its place among the structures, and the quantities missing."""

    index: int
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabelPlan:
    """What is there and what is not.

    Attributes:
        keys: of all structures.
        open: the structures to be asked, in order.
        finished: structures of which everything is there.
        topped_up: open structures of which a part is there.
        failed: structures that failed before, with the reason, and are not asked again; by index.
        seconds: estimated time of the engine for all that is missing, in one process; None where nothing is known.
        timed: how many answers the estimate rests on.
    """

    keys: tuple[StructureKey, ...]
    pending: tuple[PendingStructure, ...]
    n_complete: int
    n_partial: int
    failed: Mapping[int, str]
    seconds: float | None
    n_timings: int

    def count_missing(self) -> Counter[str]:
        """How many "forces", "hvp", "hessian" and "stress" are missing."""
        return Counter(quantity_kind(quantity) for one in self.pending for quantity in one.missing)


def make_plan(
    structures: Sequence[Structure],
    spec: LabelSpec,
    completed: Mapping[StructureKey, Mapping[str, str]],
    attempts: Sequence[Attempt],
    *,
    retry_failed: bool,
) -> LabelPlan:
    """Compare what is wanted with what a ledger holds."""
    requested = spec.quantities()
    failures: dict[StructureKey, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.reason:
            failures.setdefault(attempt.key, []).append(attempt)
    keys = tuple((s.id, geometry_digest(s)) for s in structures)
    pending: list[PendingStructure] = []
    failed: dict[int, str] = {}
    for index, key in enumerate(keys):
        present = completed.get(key, {})
        missing = tuple(quantity for quantity in requested if quantity not in present)
        reason = "" if retry_failed else _recurring_failure(failures.get(key, []), present, missing)
        if missing and reason:
            failed[index] = reason
        elif missing:
            pending.append(PendingStructure(index, missing))
    seconds, n_timings = _estimate_seconds(structures, pending, attempts)
    return LabelPlan(
        keys=keys,
        pending=tuple(pending),
        n_complete=len(keys) - len(pending) - len(failed),
        n_partial=sum(len(one.missing) < len(requested) for one in pending),
        failed=failed,
        seconds=seconds,
        n_timings=n_timings,
    )


def _recurring_failure(failures: Sequence[Attempt], present: Mapping[str, str], missing: Sequence[str]) -> str:
    """The reason of a failure that asking now would meet again: all that it left open is asked now. Empty for none: a
    structure that failed with its Hessian may well do without."""
    for failure in failures:
        unanswered = set(failure.quantities) - set(present)
        if unanswered and unanswered <= set(missing):
            return failure.reason
    return ""


def _estimate_seconds(
    structures: Sequence[Structure], pending: Sequence[PendingStructure], attempts: Sequence[Attempt]
) -> tuple[float | None, int]:
    """Seconds for all that is open: time per gradient as a power of the number of atoms, fitted to what was timed."""
    timings = [a for a in attempts if not a.reason and a.seconds > 0]
    similar = [a for a in timings if any((HESSIAN in a.quantities) == (HESSIAN in one.missing) for one in pending[:1])]
    timings = similar or timings
    if not timings or not pending:
        return (0.0 if not pending else None), len(timings)
    atoms = np.log([a.atoms for a in timings])
    cost = np.log([a.seconds / _count_gradients(a.quantities, a.atoms) for a in timings])
    power = 0.0
    if np.ptp(atoms) > 0.0:
        power = float(np.clip(np.polyfit(atoms, cost, 1)[0], 0.0, 4.0))
    # The mean of seconds, not of their logarithm: a few slow ones count.
    scale = float(np.mean(np.exp(cost - power * atoms)))
    sizes = np.array([len(structures[one.index]) for one in pending], dtype=float)
    gradients = np.array([_count_gradients(one.missing, len(structures[one.index])) for one in pending])
    return float(np.sum(scale * gradients * sizes**power)), len(timings)


def _count_gradients(quantities: Sequence[str], atoms: int) -> int:
    """Gradients that central differences would take: a scale for comparing questions, whatever the engine does."""
    counts = Counter(map(quantity_kind, quantities))
    return 1 + 2 * counts["hvp"] + 6 * atoms * counts["hessian"]
