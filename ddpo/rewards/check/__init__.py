"""The conformance kit, which tests whether a reward keeps its promises.

Authors of rewards use it as a function, as tests of pytest, and as a command.

    from ddpo.rewards.check import check_reward, conformance_tests

Importing it loads neither torch nor pytest.
"""

from ddpo.rewards.check.definition import CheckResult
from ddpo.rewards.check.run import check_reward, iter_results
from ddpo.rewards.check.testing import conformance_tests

__all__ = ["CheckResult", "check_reward", "conformance_tests", "iter_results"]
