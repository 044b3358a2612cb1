"""Checks of potentials: derivatives, smoothness, symmetries, precision."""

from hesse.checks.builtin_structures import sample_structures
from hesse.checks.catalog import CHECKS, Check
from hesse.checks.check_result import CheckResult, Status
from hesse.checks.run_checks import CheckResults, check_potential, select_checks

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "CheckResults",
    "Status",
    "check_potential",
    "sample_structures",
    "select_checks",
]
