"""Runs checks in order; a check is skipped if one that it requires has failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from hesse.checks.catalog import CHECKS, Check
from hesse.checks.check_result import CheckResult
from hesse.checks.context import make_context
from hesse.datasets import StructuresLike, as_structures
from hesse.engines import PotentialLike, as_potential
from hesse.errors import RequestError, check_choice
from hesse.runtime.devices import device_from_name
from hesse.runtime.dtypes import DTypeLike

__all__ = ["CheckResults", "check_potential", "select_checks"]


class CheckResults(list[CheckResult]):
    """Results of checks, in the order in which they ran.

    Args:
        model: name of the potential, for messages.
        results: one per check.

    Attributes:
        model: the same.
    """

    def __init__(self, model: str, results: Iterable[CheckResult] = ()) -> None:
        super().__init__(results)
        self.model = model

    @property
    def failed(self) -> list[CheckResult]:
        """The results with status fail."""
        return [result for result in self if result.status == "fail"]

    def table(self) -> str:
        """Format as text.

        Returns:
            A table of all results, the messages of failures, notes and skipped checks, and the number of each.
        """
        questions = {check.name: check.question for check in CHECKS}
        rows = [("check", "question", "result", "measured", "limit")]
        for result in self:
            value = "" if result.value is None else f"{result.value:.2g}"
            limit = "" if result.limit is None else f"{'≤' if result.bound == '<=' else '≥'} {result.limit:g}"
            rows.append((result.name, questions[result.name], result.status, value, limit))
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        lines = [
            "  ".join(
                cell.ljust(w) if k < 3 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        headings = {"fail": "FAILED", "info": "note", "skip": "skipped"}
        lines += [f"{headings[r.status]} {r.name}: {r.message}" for s in headings for r in self if r.status == s]
        words = {"pass": "passed", "fail": "failed", "info": "with a note", "skip": "skipped"}
        counts: Counter[str] = Counter(result.status for result in self)
        lines.append(", ".join(f"{counts[s]} {word}" for s, word in words.items() if counts[s]))
        return "\n".join([self.model, *(line.rstrip() for line in lines)])


def check_potential(
    potential: PotentialLike,
    structures: StructuresLike | None = None,
    *,
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] = (),
    dtype: DTypeLike = torch.float64,
    device: torch.device | str = "cpu",
    on_start: Callable[[Check], None] = lambda check: None,
) -> CheckResults:
    """Check a potential: derivatives, smoothness, symmetries, precision.

    The potential is copied and not changed. Checks that are required by the requested ones run too; they are reported
    if they fail.

    Args:
        potential: a path, a name as on the command line (`mace:FILE`, ...), a `hesse.Potential`, or the result of
            `hesse.train`.
        structures: structures to check it on (a Structure, ASE Atoms, a list, a Dataset, a path); None for built-in
            ones of its elements.
        only: name or names of checks; None for all. `hesse.checks.CHECKS` lists them.
        skip: name or names of checks to leave out. The check "compile" takes a minute.
        dtype: `torch.float64` checks formulas. In float32 limits are wide, and finite differences are skipped.
        device: device of the calculation.
        on_start: called before each check.

    Returns:
        A list of results, with `table()` and `failed`.

    Raises:
        UnknownOptionError: an unknown name of a check.
        RequestError: not a potential, or it cannot be copied.
        UnknownElementError: it does not support an element of the structures.
    """
    if not isinstance(device, torch.device):
        device = device_from_name(str(device))
    model = as_potential(potential)
    requested = select_checks(only, skip)
    names = {check.name for check in requested}
    to_run = _with_requirements(requested)
    tried = None if structures is None else as_structures(structures)
    context = make_context(model, tried, dtype=dtype, device=device)
    results = CheckResults(str(potential) if isinstance(potential, str | Path) else type(model).__name__)
    failed: set[str] = set()
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays unchanged
        torch.manual_seed(0)
        for check in to_run:
            blocked_by = next((name for name in check.requires if name in failed), None)
            if blocked_by is None:
                on_start(check)
                result = check.run(context)
            else:
                result = check.skip(_root_cause(blocked_by, results))
            if result.status == "fail" or blocked_by is not None:
                failed.add(check.name)
            if check.name in names or result.status == "fail":
                results.append(result)
    return results


def select_checks(only: str | Iterable[str] | None, skip: str | Iterable[str] = ()) -> list[Check]:
    """Choose checks by name.

    Args:
        only: name or names of checks; None for all.
        skip: name or names of checks to leave out.

    Returns:
        The checks, in the order of `CHECKS`.

    Raises:
        UnknownOptionError: an unknown name.
        RequestError: neither a name nor names.
    """
    for names in (only, skip):
        if names is not None and not isinstance(names, Iterable):
            raise RequestError(f"only and skip: expected names of checks, got {names!r}")
    only, skip = [only] if isinstance(only, str) else only, [skip] if isinstance(skip, str) else skip
    known = [check.name for check in CHECKS]
    excluded = {check_choice(name, known, "check") for name in skip}
    included = set(known) if only is None else {check_choice(name, known, "check") for name in only}
    return [check for check in CHECKS if check.name in included - excluded]


def _with_requirements(requested: Sequence[Check]) -> list[Check]:
    names, by_name = {check.name for check in requested}, {check.name: check for check in CHECKS}
    while more := {need for name in names for need in by_name[name].requires} - names:
        names |= more
    return [check for check in CHECKS if check.name in names]


def _root_cause(name: str, results: Sequence[CheckResult]) -> str:
    """The failed check that caused the skipped check `name`."""
    for result in results:
        if result.name == name and result.status == "skip" and result.message.startswith("not measured: "):
            return result.message.removeprefix("not measured: ").removesuffix(" failed")
    return name
