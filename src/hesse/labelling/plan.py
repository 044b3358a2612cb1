"""The work that is left in a campaign, and an estimate of its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hesse.labelling.ledger_records import Attempt, StructureKey, geometry_digest
from hesse.labelling.spec import HESSIAN, LabelSpec, quantity_kind
from hesse.structures import Structure

__all__ = ["LabelPlan", "PendingStructure", "make_plan"]


@dataclass(frozen=True)
class PendingStructure:
    """A structure with missing quantities.

    Attributes:
        index: index among the structures of the campaign.
        missing: names of the quantities to compute.
    """

    index: int
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabelPlan:
    """The work that is done and the work that is left.

    Attributes:
        keys: keys of all structures in the ledger.
        pending: structures to compute, in order.
        n_complete: number of structures that need nothing.
        n_partial: number of pending structures that have some of their quantities.
        failed: reasons of earlier failures, by index, of structures that are not tried again.
        seconds: estimated engine time for everything that is missing, s, in one process; None without any timing.
        n_timings: number of timings behind the estimate.
    """

    keys: tuple[StructureKey, ...]
    pending: tuple[PendingStructure, ...]
    n_complete: int
    n_partial: int
    failed: Mapping[int, str]
    seconds: float | None
    n_timings: int

    def count_missing(self) -> Counter[str]:
        """Count the missing quantities.

        Returns:
            Their number by kind: "forces", "hvp", "hessian", "stress".
        """
        return Counter(quantity_kind(quantity) for structure in self.pending for quantity in structure.missing)


def make_plan(
    structures: Sequence[Structure],
    spec: LabelSpec,
    completed: Mapping[StructureKey, Mapping[str, str]],
    attempts: Sequence[Attempt],
    *,
    retry_failed: bool,
) -> LabelPlan:
    """Compare the requested quantities with those in the ledger.

    Args:
        structures: structures of the campaign.
        spec: properties to compute for each of them.
        completed: quantities in the ledger, as `Ledger.completed` gives them.
        attempts: earlier attempts, as `Ledger.attempts` gives them.
        retry_failed: try again structures that failed before.

    Returns:
        The plan.
    """
    failures: dict[StructureKey, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.reason:
            failures.setdefault(attempt.key, []).append(attempt)
    keys = tuple((s.id, geometry_digest(s)) for s in structures)
    pending: list[PendingStructure] = []
    failed: dict[int, str] = {}
    n_partial = 0
    for index, (key, structure) in enumerate(zip(keys, structures, strict=True)):
        requested = spec.quantities_of(structure)
        present = completed.get(key, {})
        missing = tuple(quantity for quantity in requested if quantity not in present)
        reason = "" if retry_failed else _recurring_failure(failures.get(key, []), present, missing)
        if missing and reason:
            failed[index] = reason
        elif missing:
            pending.append(PendingStructure(index, missing))
            n_partial += len(missing) < len(requested)
    seconds, n_timings = _estimate_seconds(structures, pending, attempts)
    return LabelPlan(
        keys=keys,
        pending=tuple(pending),
        n_complete=len(keys) - len(pending) - len(failed),
        n_partial=n_partial,
        failed=failed,
        seconds=seconds,
        n_timings=n_timings,
    )


def _recurring_failure(failures: Sequence[Attempt], present: Mapping[str, str], missing: Sequence[str]) -> str:
    """Reason of an earlier failure that would occur again, because all the quantities that it left without a result are
    requested again. Empty if there is none: a structure that failed with its Hessian may succeed without it."""
    for failure in failures:
        unanswered = set(failure.quantities) - set(present)
        if unanswered and unanswered <= set(missing):
            return failure.reason
    return ""


def _estimate_seconds(
    structures: Sequence[Structure], pending: Sequence[PendingStructure], attempts: Sequence[Attempt]
) -> tuple[float | None, int]:
    """Seconds for everything pending, and the number of timings behind them. The time per gradient is a power of the
    number of atoms, fitted to the timings in the ledger."""
    timings = [a for a in attempts if not a.reason and a.seconds > 0]
    with_hessian = bool(pending) and HESSIAN in pending[0].missing
    timings = [a for a in timings if pending and (HESSIAN in a.quantities) == with_hessian] or timings
    if not timings or not pending:
        return (0.0 if not pending else None), len(timings)
    atoms = np.log([a.atoms for a in timings])
    cost = np.log([a.seconds / _count_gradients(a.quantities, a.atoms) for a in timings])
    power = 0.0
    if np.ptp(atoms) > 0.0:
        power = float(np.clip(np.polyfit(atoms, cost, 1)[0], 0.0, 4.0))
    # The mean of the seconds, not of their logarithms, so that a few slow structures count.
    scale = float(np.mean(np.exp(cost - power * atoms)))
    sizes = np.array([len(structures[p.index]) for p in pending], dtype=float)
    gradients = np.array([_count_gradients(p.missing, len(structures[p.index])) for p in pending])
    return float(np.sum(scale * gradients * sizes**power)), len(timings)


def _count_gradients(quantities: Sequence[str], atoms: int) -> int:
    """Number of gradients that central differences would need: a scale of the cost, whatever the engine does."""
    counts = Counter(map(quantity_kind, quantities))
    return 1 + 2 * counts["hvp"] + 6 * atoms * counts["hessian"]
