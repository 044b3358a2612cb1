"""What a potential can do, and what is wrong with it: derivatives, smoothness, symmetries, precision."""

from hesse.checks.builtin_structures import sample_structures
from hesse.checks.catalog import CHECKS, Check
from hesse.checks.check_result import CheckResult, Status
from hesse.checks.run_checks import check_potential, select_checks

__all__ = ["CHECKS", "Check", "CheckResult", "Status", "check_potential", "sample_structures", "select_checks"]
