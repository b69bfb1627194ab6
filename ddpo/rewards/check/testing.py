"""`conformance_tests`: the kit as tests of pytest, one item per check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from ddpo.rewards.check.definition import CheckResult
from ddpo.rewards.check.run import Checked, choose_checks, run_check, subject_of

if TYPE_CHECKING:
    from ddpo.rewards.check.reward_under_test import RewardUnderTest
    from ddpo.types import Prompt

__all__ = ["conformance_tests", "tell_pytest"]


def conformance_tests(
    reward: Checked,
    expected_failures: Mapping[str, str] | None = None,
    prompt: Prompt | None = None,
) -> Callable[[str], None]:
    """A parametrised test function, to be bound to a name that begins with `test`.

        from ddpo.rewards.check import conformance_tests

        test_conforms = conformance_tests("mylab/contrast")

    Args:
        reward: its name on the command line, or the reward itself; resolved in the first test.
        expected_failures: check → why it fails; shown as xfail, and as a failure if it passes.
        prompt: text and metadata of the probe images, for a reward that needs metadata.

    Raises:
        UserError: an expected failure that is no check, or has no reason.
    """
    import pytest

    expected = dict(expected_failures or {})
    checks = {check.name: check for check in choose_checks(None, expected)}

    @cache
    def subject() -> RewardUnderTest:
        return subject_of(reward, prompt)

    @pytest.mark.parametrize("check", list(checks))
    def test_conforms(check: str) -> None:
        tell_pytest(run_check(checks[check], subject(), expected.get(check)))

    return test_conforms


def tell_pytest(result: CheckResult) -> None:
    """Ends the test that is running as the check came out."""
    import pytest

    if result.outcome == "skipped":
        pytest.skip(result.detail)
    if result.outcome == "expected":
        pytest.xfail(result.detail)
    if not result.ok:
        pytest.fail(f"{result.name}: {result.detail}", pytrace=False)
