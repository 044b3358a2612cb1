"""Checks in order: each only where what it needs has not failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from hesse.checks.catalog import CHECKS, Check
from hesse.checks.check_result import CheckResult
from hesse.checks.context import make_context
from hesse.errors import check_choice
from hesse.potential import Potential
from hesse.structures import Structure

__all__ = ["check_potential", "select_checks"]


def check_potential(
    potential: Potential,
    structures: Sequence[Structure] | None = None,
    *,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    on_start: Callable[[Check], None] = lambda check: None,
) -> list[CheckResult]:
    """What a potential can do, check by check.

    The potential is copied, and left as it is. Checks that others need run too; they are reported where they fail.

    Args:
        potential: any.
        structures: to try it on; None for built-in ones of its elements.
        only: names of the checks wanted; None for all.
        skip: names of checks to leave out.
        dtype: float64 asks about formulas. In float32 limits are wide, and what needs finite differences is skipped.
        device: where to calculate.
        told: called before each check.

    Raises:
        UnknownOptionError: a name that is no check's.
        RequestError: the potential cannot be copied, or does not know an element of the structures.
    """
    requested = select_checks(only, skip)
    names = {check.name for check in requested}
    to_run = _with_requirements(requested)
    context = make_context(potential, structures, dtype=dtype, device=device)
    results: list[CheckResult] = []
    failed: set[str] = set()
    with torch.random.fork_rng(devices=[]):  # a potential that draws random numbers must not change its owner's
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


def select_checks(only: Iterable[str] | None, skip: Iterable[str] = ()) -> list[Check]:
    """The checks of these names, in their own order. Raises UnknownOptionError for a name that is no check's."""
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
    """The failure behind a check that could not be measured itself."""
    for result in results:
        if result.name == name and result.status == "skip" and result.message.startswith("not measured: "):
            return result.message.removeprefix("not measured: ").removesuffix(" failed")
    return name
