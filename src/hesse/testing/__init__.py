"""The checks of `hesse check` as assertions, for test suites of other projects. They need no test framework.

With pytest:

    @pytest.mark.parametrize("check", hesse.testing.CHECKS, ids=lambda check: check.name)
    def test_my_potential(check):
        hesse.testing.assert_check(check, my_potential)
"""

from hesse.checks import CHECKS, Check, CheckResult, check_potential
from hesse.testing.assertions import FAST_CHECKS, assert_check, assert_potential

__all__ = ["CHECKS", "FAST_CHECKS", "Check", "CheckResult", "assert_check", "assert_potential", "check_potential"]
