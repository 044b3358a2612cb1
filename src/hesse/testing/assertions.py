"""Checks as assertions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from hesse.checks import CHECKS, Check, CheckResult, check_potential
from hesse.potential import Potential
from hesse.structures import Structure

__all__ = ["FAST_CHECKS", "assert_check", "assert_potential"]

FAST_CHECKS: tuple[Check, ...] = tuple(check for check in CHECKS if check.name != "compile")
"""All checks but the one that runs the compiler, which takes a minute."""


def assert_potential(
    potential: Potential,
    structures: Sequence[Structure] | None = None,
    *,
    skip: Iterable[str] = ("compile",),
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> list[CheckResult]:
    """Run all checks but those of `skip`, and return their results.

    Args:
        potential: any; it is copied, and left as it is.
        structures: to try it on; None for built-in ones of its elements.
        skip: names of checks to leave out (by default the compiler's, which takes a minute).
        dtype: see `hesse.checks.check_potential`.
        device: where to calculate.

    Raises:
        AssertionError: at least one check failed; the message tells all that did, and what to do.
        RequestError: a name that is no check's; structures of elements that the potential does not know.
    """
    results = check_potential(potential, structures, skip=skip, dtype=dtype, device=device)
    _raise_failures(potential, results)
    return results


def assert_check(
    check: Check | str,
    potential: Potential,
    structures: Sequence[Structure] | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Run one check, and those that it needs; for parametrized tests.

    Raises:
        AssertionError: it failed, or one that it needs did.
        RequestError: as `assert_potential`.
    """
    name = check if isinstance(check, str) else check.name
    results = check_potential(potential, structures, only=[name], dtype=dtype, device=device)
    _raise_failures(potential, results)
    return results[-1]


def _raise_failures(potential: Potential, results: Sequence[CheckResult]) -> None:
    failed = [result for result in results if result.status == "fail"]
    if failed:
        messages = "\n".join(f"  {r.name}: {r.message}" for r in failed)
        raise AssertionError(f"{type(potential).__name__} fails {len(failed)} of {len(results)} checks:\n{messages}")
