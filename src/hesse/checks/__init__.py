"""What a potential can do, and what is wrong with it: derivatives, smoothness, symmetries, precision."""

from hesse.checks.catalogue import CHECKS, Check
from hesse.checks.result import CheckResult, Status
from hesse.checks.run import check_potential, select_checks
from hesse.checks.samples import sample_structures

__all__ = ["CHECKS", "Check", "CheckResult", "Status", "check_potential", "sample_structures", "select_checks"]
