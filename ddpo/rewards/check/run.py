"""`check_reward`: every check of the kit on one reward. Torch is imported when the first check is asked for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ddpo.devices import AUTO, resolve_device
from ddpo.errors import ConfigError, one_line
from ddpo.registry import unknown_name
from ddpo.rewards.base import Reward
from ddpo.rewards.check.definition import Check, CheckResult, Fault, NotApplicable, Outcome
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.spec import parse_expression
from ddpo.rewards.zoo import resolve

if TYPE_CHECKING:
    from ddpo.rewards.check.subject import Subject
    from ddpo.types import Prompt

__all__ = [
    "all_checks",
    "check_reward",
    "choose_checks",
    "iter_results",
    "parse_expected",
    "run_check",
    "subject_of",
]

Checked = str | Reward | ResolvedReward
"""What can be checked: a specification such as "mylab/contrast" or "./file.py:Object", a reward, or one that was found."""


def all_checks() -> dict[str, Check]:
    """Name → check, in the order in which they run: the card first, what takes longest last."""
    from ddpo.rewards.check import (
        card,
        contract,
        gradient,
        inputs,
        invariance,
        pixels,
        processes,
        resources,
        scale,
    )

    topics = (card, processes, contract, invariance, pixels, inputs, scale, gradient, resources)
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


def subject_of(reward: Checked, prompt: Prompt | None = None, device: str = AUTO) -> Subject:
    """The reward as the checks want it; raises as `ddpo.rewards.zoo.resolve`."""
    from ddpo.rewards.check.subject import Subject

    if isinstance(reward, str):
        found = resolve(reward).on(resolve_device(device))
        return Subject(found, _plain_name(reward, found), prompt)
    if isinstance(reward, ResolvedReward):
        return Subject(reward, reward.card.id if reward.factory is None else "", prompt)
    options = {option.name: option.default for option in reward.card.options}
    return Subject(
        ResolvedReward(reward.card, options, "an object", lambda **_: reward),
        "",
        prompt,
        remake=False,
    )


def _plain_name(text: str, found: ResolvedReward) -> str:
    """How the reward is named without its options, so that it can be found again with their defaults."""
    if found.parts:
        return text
    spec = parse_expression(text)[1][0]
    return f"{spec.target}:{spec.attribute}" if spec.attribute else spec.target


def run_check(check: Check, subject: Subject, expected: str | None = None) -> CheckResult:
    """Runs one check. Whatever the reward raises is a failure of this check alone, and global state is put back afterwards.

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
    except NotApplicable as error:
        outcome, detail = "skipped", str(error)
    except Fault as error:
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
    """As `check_reward`, one result at a time, on `device`. What is wrong with the arguments is raised at once."""
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
        expected_failures: check → why it fails. One that passes all the same is reported as "unexpected pass", which is a failure.
        only: the names of the checks to run; all if None.
        prompt: text and metadata of the probe pictures, for a reward that needs metadata.

    Returns:
        One result per check; all is well if every one is `ok`. Where weights are missing, the checks that need them are skipped.

    Raises:
        UserError: the reward cannot be found, a check is not known, an expected failure has no reason.
    """
    return list(iter_results(reward, expected_failures, only, prompt))
