"""The conformance kit as tests of pytest, one per check: `conformance_tests`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from ddpo.rewards.check.definition import CheckResult
from ddpo.rewards.check.run import Checked, choose_checks, prepare_reward, run_check

if TYPE_CHECKING:
    from ddpo.rewards.check.reward_under_test import RewardUnderTest
    from ddpo.types import Prompt

__all__ = ["conformance_tests", "report_to_pytest"]


def conformance_tests(
    reward: Checked,
    expected_failures: Mapping[str, str] | None = None,
    prompt: Prompt | None = None,
) -> Callable[[str], None]:
    """A parametrised test function, for a name that starts with `test`.

        from ddpo.rewards.check import conformance_tests

        test_conforms = conformance_tests("mylab/contrast")

    Args:
        reward: specification of the reward as on the command line, or the reward itself. It is
            resolved in the first test.
        expected_failures: name of a check → reason of its failure, which is shown as xfail. A check
            that passes nonetheless is a failure.
        prompt: text and metadata of the probe images, for a reward that needs metadata.

    Raises:
        UserError: an expected failure names no check, or has no reason.
    """
    import pytest

    expected = dict(expected_failures or {})
    checks = {check.name: check for check in choose_checks(None, expected)}

    @cache
    def tested() -> RewardUnderTest:
        return prepare_reward(reward, prompt)

    @pytest.mark.parametrize("check", list(checks))
    def test_conforms(check: str) -> None:
        report_to_pytest(run_check(checks[check], tested(), expected.get(check)))

    return test_conforms


def report_to_pytest(result: CheckResult) -> None:
    """Ends the running test with the outcome of a check."""
    import pytest

    if result.outcome == "skipped":
        pytest.skip(result.detail)
    if result.outcome == "expected":
        pytest.xfail(result.detail)
    if not result.ok:
        pytest.fail(f"{result.name}: {result.detail}", pytrace=False)
