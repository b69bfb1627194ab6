"""Checks and their outcomes, without any heavy import."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ddpo.author_errors import author_error_as, author_line
from ddpo.errors import INTERRUPTS, DdpoError

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
    "checks_table",
    "demand_of",
    "failing",
    "run_probe",
]

Outcome = Literal["passed", "failed", "expected", "unexpected pass", "skipped"]
Needs = Literal["card", "reward", "scores"]
Probe = Callable[["RewardUnderTest"], str | None]
"""Examines a reward and returns one line of detail, or None.

Raises `CheckFailed`, or `CheckSkipped` if the check does not apply.
"""


class CheckFailed(DdpoError):
    """The examined object breaks a demand; the message is one line with the evidence."""


class CheckSkipped(DdpoError):
    """The check does not apply to this object; the message is one line with the reason."""


def failing(prefix: str) -> AbstractContextManager[None]:
    """A block whose errors are failures of the check.

    Args:
        prefix: Text before the author's line in the message.
    """
    return author_error_as(lambda error: CheckFailed(f"{prefix}{author_line(error)}"))


@dataclass(frozen=True, slots=True)
class Check:
    """One demand on a reward."""

    name: str  # lower case with hyphens
    demand: str  # one line
    needs: Needs  # the card, a reward that can be made, or one that also scores the probe images
    probe: Probe


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check of one reward, algorithm or model."""

    name: str
    outcome: Outcome
    detail: str  # one line: the finding, or the reason of a failure or of a skip
    seconds: float

    @property
    def ok(self) -> bool:
        """True unless the check failed, or passed although a failure was expected."""
        return self.outcome not in ("failed", "unexpected pass")


def check(needs: Needs) -> Callable[[Probe], Check]:
    """A decorator that turns a function into a check.

    The function's name with hyphens is the name of the check, its docstring the demand.

    Args:
        needs: the part of the reward without which the check is skipped.
    """

    def define(probe: Probe) -> Check:
        return Check(probe.__name__.replace("_", "-"), demand_of(probe), needs, probe)

    return define


def demand_of(probe: Callable[..., object]) -> str:
    """The demand that a probe examines: its docstring on one line."""
    return " ".join((inspect.getdoc(probe) or "").split())


def checks_table(demands: Mapping[str, str]) -> str:
    """A Markdown table with one row per check.

    Args:
        demands: Name of a check → its demand.
    """
    lines = ["| check | demands |", "|---|---|"]
    for name, demand in demands.items():
        escaped = demand.replace("|", "\\|")
        lines.append(f"| `{name}` | {escaped} |")
    return "\n".join(lines) + "\n"


def run_probe(name: str, probe: Callable[[], str | None]) -> CheckResult:
    """The result of one check; any error of the examined object is a failure of this check alone.

    Args:
        name: Name of the check.
        probe: Function as in `Probe`, with its argument bound.
    """
    started = time.perf_counter()
    outcome, detail = _outcome(probe)
    return CheckResult(name, outcome, " ".join(detail.split()), time.perf_counter() - started)


def _outcome(probe: Callable[[], str | None]) -> tuple[Outcome, str]:
    """Outcome and detail of a probe."""
    try:
        return "passed", probe() or ""
    except CheckSkipped as error:
        return "skipped", str(error)
    except CheckFailed as error:
        return "failed", str(error)
    except INTERRUPTS:
        raise
    except BaseException as error:  # noqa: BLE001  # an author's object may raise anything
        return "failed", f"raised {author_line(error)}"
