"""What a check is, and what can come of it. Nothing heavy is imported."""

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
"""Returns what was found, on one line, or None; raises `CheckFailed`, or `CheckSkipped` where nothing can be said."""


class CheckFailed(DdpoError):
    """What the reward does wrong, on one line."""


class CheckSkipped(DdpoError):
    """Why a check says nothing about this reward, on one line."""


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
        """Whether nothing is wrong; a fault that was expected and did not show is."""
        return self.outcome not in ("failed", "unexpected pass")


def check(needs: Needs) -> Callable[[Probe], Check]:
    """Makes a check of a function: its name with hyphens, and the first line of its docstring, which says what it demands."""

    def define(probe: Probe) -> Check:
        demand = (inspect.getdoc(probe) or "").splitlines()[0]
        return Check(probe.__name__.replace("_", "-"), demand, needs, probe)

    return define
