"""Checks and their outcomes. Nothing heavy is imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ddpo.errors import DdpoError

if TYPE_CHECKING:
    from ddpo.rewards.check.reward_under_test import RewardUnderTest

__all__ = [
    "Check",
    "CheckFailed",
    "CheckResult",
    "CheckSkipped",
    "Needs",
    "Outcome",
    "Probe",
    "check",
]

Outcome = Literal["passed", "failed", "expected", "unexpected pass", "skipped"]
Needs = Literal["card", "reward", "scores"]
Probe = Callable[["RewardUnderTest"], str | None]
"""Returns one line or None; raises `CheckFailed`, or `CheckSkipped` where it does not apply."""


class CheckFailed(DdpoError):
    """The reward breaks a demand; the message says how, on one line."""


class CheckSkipped(DdpoError):
    """The check does not apply to this reward; the message says why, on one line."""


@dataclass(frozen=True, slots=True)
class Check:
    """One demand on a reward."""

    name: str  # lower case with hyphens
    demand: str  # what it demands, on one line
    needs: (
        Needs  # the card alone; a reward that can be made; one that also scores the probe pictures
    )
    probe: Probe


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check of one reward."""

    name: str
    outcome: Outcome
    detail: str  # one line: what was found, why it failed, why it was skipped
    seconds: float

    @property
    def ok(self) -> bool:
        """True unless the check failed, or passed although a failure was expected."""
        return self.outcome not in ("failed", "unexpected pass")


def check(needs: Needs) -> Callable[[Probe], Check]:
    """A decorator that makes a check of a function.

    The check has the function's name with hyphens; the first line of the docstring is its demand.
    """

    def define(probe: Probe) -> Check:
        demand = (inspect.getdoc(probe) or "").splitlines()[0]
        return Check(probe.__name__.replace("_", "-"), demand, needs, probe)

    return define
