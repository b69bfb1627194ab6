"""`check_reward`: every check of the kit on one reward. Torch is imported with the first check."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ddpo.devices import AUTO, resolve_device
from ddpo.errors import ConfigError, one_line
from ddpo.registry import unknown_name
from ddpo.rewards.base import Reward
from ddpo.rewards.check.definition import Check, CheckFailed, CheckResult, CheckSkipped, Outcome
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.spec import parse_expression
from ddpo.rewards.zoo import resolve

if TYPE_CHECKING:
    from ddpo.rewards.check.reward_under_test import RewardUnderTest
    from ddpo.types import Prompt

__all__ = [
    "all_checks",
    "check_reward",
    "choose_checks",
    "iter_results",
    "parse_expected",
    "render_checks_markdown",
    "run_check",
    "subject_of",
]

Checked = str | Reward | ResolvedReward
"""A specification such as "mylab/contrast" or "./file.py:Object", a reward, or a resolved one."""


def all_checks() -> dict[str, Check]:
    """Name → check, in the order in which they run: the card first, what takes longest last."""
    from ddpo.rewards.check import card, contract, inputs, invariance, resources, values

    topics = (card, contract, invariance, inputs, values, resources)
    return {check.name: check for topic in topics for check in topic.CHECKS}


def choose_checks(
    only: Collection[str] | None, expected_failures: Mapping[str, str]
) -> list[Check]:
    """The checks to run: all, or those named.

    Raises:
        UnknownNameError: no such check; says the nearest.
        ConfigError: an expected failure without a reason.
    """
    known = all_checks()
    for name in (*(only or ()), *expected_failures):
        if name not in known:
            raise unknown_name("check", name, known)
    for name, reason in expected_failures.items():
        if not reason.strip():
            raise ConfigError(f"the expected failure of {name!r} needs a reason")
    return [check for name, check in known.items() if only is None or name in only]


def parse_expected(texts: Iterable[str]) -> dict[str, str]:
    """Expected failures as they are given on a command line, each `check=reason`.

    Raises:
        ConfigError: one has no reason.
    """
    pairs = [text.partition("=") for text in texts]
    for name, _, reason in pairs:
        if not name.strip() or not reason.strip():
            raise ConfigError(
                f"an expected failure is given as check=reason, got {name!r} without a reason"
            )
    return {name.strip(): reason.strip() for name, _, reason in pairs}


def subject_of(
    reward: Checked, prompt: Prompt | None = None, device: str = AUTO
) -> RewardUnderTest:
    """The reward as the checks want it; raises as `ddpo.rewards.zoo.resolve`."""
    from ddpo.rewards.check.reward_under_test import RewardUnderTest

    if isinstance(reward, str):
        found = resolve(reward).on(resolve_device(device))
        return RewardUnderTest(found, _plain_name(reward, found), prompt)
    if isinstance(reward, ResolvedReward):
        return RewardUnderTest(reward, reward.card.id if reward.factory is None else "", prompt)
    options = {option.name: option.default for option in reward.card.options}
    return RewardUnderTest(
        ResolvedReward(reward.card, options, "an object", lambda **_: reward),
        "",
        prompt,
        remake=False,
    )


def _plain_name(text: str, found: ResolvedReward) -> str:
    """The reward's name without options, by which it is found again with their defaults."""
    if found.parts:
        return text
    spec = parse_expression(text).terms[0].reward
    return f"{spec.target}:{spec.attribute}" if spec.attribute else spec.target


def run_check(check: Check, subject: RewardUnderTest, expected: str | None = None) -> CheckResult:
    """Runs one check and restores global state afterwards.

    Any error of the reward is a failure of this check alone.

    Args:
        check: the check.
        subject: the reward.
        expected: why a failure is expected; None if it is not.
    """
    from ddpo.rewards.check.world import preserved

    begun = time.perf_counter()
    outcome: Outcome
    try:
        with preserved():
            if check.needs == "reward":
                _ = subject.reward
            if check.needs == "scores":
                _ = subject.reward, subject.scores
            outcome, detail = "passed", check.probe(subject) or ""
    except CheckSkipped as error:
        outcome, detail = "skipped", str(error)
    except CheckFailed as error:
        outcome, detail = "failed", str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a reward is foreign code and may raise anything
        outcome, detail = "failed", f"raised {one_line(error)}"
    if expected is not None and outcome == "failed":
        outcome, detail = "expected", f"{expected} ({detail})"
    elif expected is not None and outcome == "passed":
        outcome, detail = "unexpected pass", f"it passes; expected to fail: {expected}"
    return CheckResult(check.name, outcome, " ".join(detail.split()), time.perf_counter() - begun)


def iter_results(
    reward: Checked,
    expected_failures: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    prompt: Prompt | None = None,
    device: str = AUTO,
) -> Iterator[CheckResult]:
    """The results of `check_reward` one at a time, on `device`; wrong arguments raise at once."""
    expected = dict(expected_failures or {})
    checks = choose_checks(only, expected)
    subject = subject_of(reward, prompt, device)
    return (run_check(check, subject, expected.get(check.name)) for check in checks)


def check_reward(
    reward: Checked,
    expected_failures: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    prompt: Prompt | None = None,
) -> list[CheckResult]:
    """Runs the conformance kit on a reward.

    Args:
        reward: how it is named on the command line, or the reward itself.
        expected_failures: check → why it fails. One that passes nonetheless is reported as
            "unexpected pass", which is a failure.
        only: the names of the checks to run; all if None.
        prompt: text and metadata of the probe pictures, for a reward that needs metadata.

    Returns:
        One result per check. Checks that need weights are skipped where these are missing.

    Raises:
        UserError: the reward or a check is unknown, or an expected failure has no reason.
    """
    return list(iter_results(reward, expected_failures, only, prompt))


def render_checks_markdown() -> str:
    """A Markdown table with one row per check."""
    lines = ["| check | demands |", "|---|---|"]
    lines += [
        f"| `{check.name}` | {check.demand.replace('|', chr(92) + '|')} |"
        for check in all_checks().values()
    ]
    return "\n".join(lines) + "\n"
