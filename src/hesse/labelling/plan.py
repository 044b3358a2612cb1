"""What a campaign still has to ask, and about how long that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hesse.labelling.ledger import Attempt, Key, geometry_digest
from hesse.labelling.request import HESSIAN, LabelRequest, kind_of
from hesse.structures import Structure

__all__ = ["LabelPlan", "Open", "make_plan"]


@dataclass(frozen=True)
class Open:
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

    keys: tuple[Key, ...]
    open: tuple[Open, ...]
    finished: int
    topped_up: int
    failed: Mapping[int, str]
    seconds: float | None
    timed: int

    def counts(self) -> Counter[str]:
        """How many "forces", "hvp", "hessian" and "stress" are missing."""
        return Counter(kind_of(quantity) for one in self.open for quantity in one.missing)


def make_plan(
    structures: Sequence[Structure],
    request: LabelRequest,
    known: Mapping[Key, Mapping[str, str]],
    attempts: Sequence[Attempt],
    *,
    retry_failed: bool,
) -> LabelPlan:
    """Compare what is wanted with what a ledger holds."""
    wanted = request.quantities()
    failures: dict[Key, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.reason:
            failures.setdefault(attempt.key, []).append(attempt)
    keys = tuple((s.id, geometry_digest(s)) for s in structures)
    found: list[Open] = []
    failed: dict[int, str] = {}
    for index, key in enumerate(keys):
        there = known.get(key, {})
        missing = tuple(quantity for quantity in wanted if quantity not in there)
        reason = "" if retry_failed else _stands(failures.get(key, []), there, missing)
        if missing and reason:
            failed[index] = reason
        elif missing:
            found.append(Open(index, missing))
    seconds, timed = _estimate(structures, found, attempts)
    return LabelPlan(
        keys=keys,
        open=tuple(found),
        finished=len(keys) - len(found) - len(failed),
        topped_up=sum(len(one.missing) < len(wanted) for one in found),
        failed=failed,
        seconds=seconds,
        timed=timed,
    )


def _stands(failures: Sequence[Attempt], there: Mapping[str, str], missing: Sequence[str]) -> str:
    """The reason of a failure that asking now would meet again: all that it left open is asked now. Empty for none: a
    structure that failed with its Hessian may well do without."""
    for failure in failures:
        left_open = set(failure.asked) - set(there)
        if left_open and left_open <= set(missing):
            return failure.reason
    return ""


def _estimate(
    structures: Sequence[Structure], open_ones: Sequence[Open], attempts: Sequence[Attempt]
) -> tuple[float | None, int]:
    """Seconds for all that is open: time per gradient as a power of the number of atoms, fitted to what was timed."""
    timed = [a for a in attempts if not a.reason and a.seconds > 0]
    alike = [a for a in timed if any((HESSIAN in a.asked) == (HESSIAN in one.missing) for one in open_ones[:1])]
    timed = alike or timed
    if not timed or not open_ones:
        return (0.0 if not open_ones else None), len(timed)
    atoms = np.log([a.atoms for a in timed])
    cost = np.log([a.seconds / _gradients(a.asked, a.atoms) for a in timed])
    power = 0.0
    if np.ptp(atoms) > 0.0:
        power = float(np.clip(np.polyfit(atoms, cost, 1)[0], 0.0, 4.0))
    # The mean of seconds, not of their logarithm: a few slow ones count.
    scale = float(np.mean(np.exp(cost - power * atoms)))
    sizes = np.array([len(structures[one.index]) for one in open_ones], dtype=float)
    gradients = np.array([_gradients(one.missing, len(structures[one.index])) for one in open_ones])
    return float(np.sum(scale * gradients * sizes**power)), len(timed)


def _gradients(quantities: Sequence[str], atoms: int) -> int:
    """Gradients that central differences would take: a scale for comparing questions, whatever the engine does."""
    counts = Counter(map(kind_of, quantities))
    return 1 + 2 * counts["hvp"] + 6 * atoms * counts["hessian"]
