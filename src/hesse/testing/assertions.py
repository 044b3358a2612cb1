"""Checks as assertions."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hesse.checks import CHECKS, Check, CheckResult, CheckResults, check_potential
from hesse.datasets import StructuresLike
from hesse.engines import PotentialLike

__all__ = ["FAST_CHECKS", "assert_check", "assert_potential"]

FAST_CHECKS: tuple[Check, ...] = tuple(check for check in CHECKS if check.name != "compile")
"""All checks except "compile", which takes a minute."""


def assert_potential(
    potential: PotentialLike,
    structures: StructuresLike | None = None,
    *,
    skip: Iterable[str] = ("compile",),
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> CheckResults:
    """Assert that a potential passes all checks.

    Args:
        potential: see `hesse.checks.check_potential`; it is copied and not changed.
        structures: structures to check it on; None for built-in ones of its elements.
        skip: names of checks to leave out; default: "compile", which takes a minute.
        dtype: see `hesse.checks.check_potential`.
        device: device of the calculation.

    Returns:
        The results of all checks.

    Raises:
        AssertionError: a check failed; the message lists all failures, and what to do.
        UnknownOptionError: an unknown name of a check.
        RequestError: as `hesse.checks.check_potential`.
    """
    results = check_potential(potential, structures, skip=skip, dtype=dtype, device=device)
    _raise_failures(results)
    return results


def assert_check(
    check: Check | str,
    potential: PotentialLike,
    structures: StructuresLike | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Assert that a potential passes one check, and those that it requires; for parametrized tests.

    Args:
        check: the check or its name.
        potential: see `hesse.checks.check_potential`; it is copied and not changed.
        structures: structures to check it on; None for built-in ones of its elements.
        dtype: see `hesse.checks.check_potential`.
        device: device of the calculation.

    Returns:
        The result of the check.

    Raises:
        AssertionError: the check, or one that it requires, failed.
        UnknownOptionError: an unknown name of a check.
        RequestError: as `hesse.checks.check_potential`.
    """
    name = check if isinstance(check, str) else check.name
    results = check_potential(potential, structures, only=[name], dtype=dtype, device=device)
    _raise_failures(results)
    return results[-1]


def _raise_failures(results: CheckResults) -> None:
    if results.failed:
        messages = "\n".join(f"  {r.name}: {r.message}" for r in results.failed)
        raise AssertionError(f"{results.model} fails {len(results.failed)} of {len(results)} checks:\n{messages}")
