"""The conformance kit on one reward: `check_reward`. The first check imports torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ddpo.devices import AUTO, resolve_device
from ddpo.errors import ConfigError
from ddpo.rewards.base import Reward
from ddpo.rewards.check.definition import Check, CheckResult, checks_table, run_probe
from ddpo.rewards.check.names import check_names
from ddpo.rewards.check.time_limits import FirstCall, TimeLimits
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.spec import parse_expression
from ddpo.rewards.zoo import resolve
from ddpo.word_lists import words_of

if TYPE_CHECKING:
    from ddpo.rewards.check.reward_under_test import RewardUnderTest
    from ddpo.types import Prompt

__all__ = [
    "all_checks",
    "check_reward",
    "choose_checks",
    "iter_results",
    "parse_expected",
    "prepare_reward",
    "render_checks_markdown",
    "run_check",
]

Checked = str | Reward | ResolvedReward
"""A specification such as "mylab/contrast" or "./file.py:Object", a reward, or a resolved one."""


def all_checks() -> dict[str, Check]:
    """Name → check, in the order in which they run, the longest last."""
    from ddpo.rewards.check import card, contract, inputs, invariance, resources, values

    topics = (card, contract, invariance, inputs, values, resources)
    return {check.name: check for topic in topics for check in topic.CHECKS}


def choose_checks(
    only: Collection[str] | None, expected_failures: Mapping[str, str]
) -> list[Check]:
    """The checks to run.

    Args:
        only: names of the checks; None for all of them.
        expected_failures: name of a check → reason of its failure.

    Raises:
        UnknownNameError: there is no such check; the message names the nearest.
        ConfigError: an expected failure has no reason.
    """
    chosen = None if only is None else words_of("only", only)
    check_names(chosen, expected_failures)
    return [check for name, check in all_checks().items() if chosen is None or name in chosen]


def parse_expected(texts: Iterable[str]) -> dict[str, str]:
    """Name of a check → reason of its expected failure.

    Args:
        texts: values of `--expect`, each `check=reason`.

    Raises:
        ConfigError: one has no name or no reason.
    """
    expected = {}
    for text in texts:
        name, _, reason = (part.strip() for part in text.partition("="))
        if not name or not reason:
            rule = "an expected failure is given as check=reason"
            raise ConfigError(f"{rule}, got {name!r} without a reason")
        expected[name] = reason
    return expected


def prepare_reward(
    reward: Checked, prompt: Prompt | None = None, device: str = AUTO
) -> RewardUnderTest:
    """The reward with its probe images; raises as `ddpo.rewards.zoo.resolve`.

    Args:
        reward: specification of the reward, or the reward itself.
        prompt: prompt of all probe images; by default texts of different lengths.
        device: torch device of a reward that is given by its specification.
    """
    from ddpo.rewards.check.reward_under_test import RewardUnderTest

    if isinstance(reward, str):
        resolved = resolve(reward).on(resolve_device(device))
        return RewardUnderTest(resolved, _plain_name(reward, resolved), prompt)
    if isinstance(reward, ResolvedReward):
        return RewardUnderTest(reward, reward.card.id if reward.factory is None else "", prompt)
    options = {option.name: option.default for option in reward.card.options}
    resolved = ResolvedReward(reward.card, options, "an object", lambda **_: reward)
    return RewardUnderTest(resolved, "", prompt, remakable=False)


def _plain_name(specification: str, resolved: ResolvedReward) -> str:
    """The specification without its options; that of a combination is unchanged."""
    if resolved.parts:
        return specification
    spec = parse_expression(specification)[1][0]
    return f"{spec.target}:{spec.attribute}" if spec.attribute else spec.target


def run_check(check: Check, tested: RewardUnderTest, expected: str | None = None) -> CheckResult:
    """Runs one check and restores global state afterwards.

    Any error of the reward is a failure of this check alone.

    Args:
        check: the check.
        tested: the reward under test.
        expected: reason of an expected failure; None if the check should pass.
    """
    result = run_probe(check.name, partial(_probe, check, tested))
    if expected is None:
        return result
    reason = " ".join(expected.split())
    if result.outcome == "failed":
        return replace(result, outcome="expected", detail=f"{reason} ({result.detail})")
    if result.outcome == "passed":
        detail = f"it passes; expected to fail: {reason}"
        return replace(result, outcome="unexpected pass", detail=detail)
    return result


def _probe(check: Check, tested: RewardUnderTest) -> str | None:
    """The detail of a check, whose reward and scores are made first if it needs them."""
    from ddpo.rewards.check.global_state import preserved

    with preserved():
        if check.needs != "card":
            _ = tested.reward
        if check.needs == "scores":
            _ = tested.scores
        return check.probe(tested)


def iter_results(
    reward: Checked,
    expected_failures: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    prompt: Prompt | None = None,
    device: str = AUTO,
    timeout_s: float | None = None,
    say: Callable[[str], object] = lambda line: None,
    each_s: float | None = None,
) -> Iterator[CheckResult]:
    """The results of `check_reward` one at a time; wrong arguments raise before the first.

    Args:
        reward: as in `check_reward`.
        expected_failures: as in `check_reward`.
        only: as in `check_reward`.
        prompt: as in `check_reward`.
        device: torch device of a reward that is given by its specification.
        timeout_s: seconds for all checks together; None for no limit. A check that exceeds it, and
            all after it, fail.
        say: receiver of a line if the reward is slow.
        each_s: seconds for each check; None for no limit. A check that exceeds it fails, and the
            others run. If the first call of the reward exceeds it, all that need scores fail.
    """
    expected = dict(expected_failures or {})
    checks = choose_checks(only, expected)
    tested = prepare_reward(reward, prompt, device)
    return _results(checks, tested, expected, TimeLimits(timeout_s, each_s), say)


def _results(
    checks: Sequence[Check],
    tested: RewardUnderTest,
    expected: Mapping[str, str],
    limits: TimeLimits,
    say: Callable[[str], object],
) -> Iterator[CheckResult]:
    first: FirstCall | None = None
    names = {check.name for check in checks}
    for check in checks:
        if check.needs == "scores" and first is None:
            first = FirstCall(tested, say)
            first.run(limits)
        if first is not None and first.hangs:
            yield CheckResult(check.name, "failed", limits.reason(), 0.0)
            continue
        run = partial(run_check, check, tested, expected.get(check.name))
        yield limits.run(check.name, run)
        other = tested.fault_reported_by
        if other is not None and other not in names:  # a chosen check alone would be skipped
            names.add(other)
            run = partial(run_check, all_checks()[other], tested, expected.get(other))
            yield limits.run(other, run)


def check_reward(
    reward: Checked,
    expected_failures: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    prompt: Prompt | None = None,
) -> list[CheckResult]:
    """Runs the conformance kit on a reward.

    Args:
        reward: specification of the reward as on the command line, or the reward itself.
        expected_failures: name of a check → reason of its failure. A check that passes nonetheless
            is reported as "unexpected pass", which is a failure.
        only: names of the checks to run; None for all of them.
        prompt: text and metadata of the probe images, for a reward that needs metadata.

    Returns:
        One result per check. Checks that need weights are skipped where these are missing.

    Raises:
        UserError: the reward or a check is unknown, or an expected failure has no reason.
    """
    return list(iter_results(reward, expected_failures, only, prompt))


def render_checks_markdown() -> str:
    """A Markdown table with one row per check."""
    return checks_table({name: check.demand for name, check in all_checks().items()})
