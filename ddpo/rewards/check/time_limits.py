"""Time limits of the checks of a reward, and the line about a slow one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ddpo.errors import INTERRUPTS
from ddpo.io.background import Background
from ddpo.rewards.check.definition import CheckResult
from ddpo.text import duration

if TYPE_CHECKING:
    from ddpo.rewards.check.reward_under_test import RewardUnderTest

__all__ = ["FirstCall", "TimeLimits"]

PROBES: Final = 6  # images of the first call
CALLED: Final = 300  # images that all checks score, measured on a function; large ones take longer
SLOW_S: Final = 0.2  # seconds per image above which the reward is called slow
WAIT_S: Final = 5.0  # seconds of the first call after which the reward is called slow
THREAD: Final = "ddpo-check"


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds for all checks together and for each of them; None for no limit."""

    all_s: float | None = None
    each_s: float | None = None
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float | None:
        """Seconds that the next check may take; not positive if the time of all is over."""
        if self.all_s is None:
            return self.each_s
        rest = self.all_s - (time.monotonic() - self.started)
        return rest if self.each_s is None else min(rest, self.each_s)

    def run(self, name: str, check: Callable[[], CheckResult]) -> CheckResult:
        """The result of a check; one that does not end in time fails, and is left to its thread."""
        left = self.left()
        if left is None:
            return check()
        if left <= 0:
            return CheckResult(name, "failed", self.reason(), 0.0)
        try:
            return Background(check, THREAD).result(left)
        except TimeoutError:
            return CheckResult(name, "failed", self.reason(), left)

    def reason(self) -> str:
        """The limit that a check which did not end has met."""
        rest = None if self.all_s is None else self.all_s - (time.monotonic() - self.started)
        if rest is not None and (rest <= 0 or self.each_s is None):
            return f"not finished within the {self.all_s:g} s for all checks"
        return f"not finished within the {self.each_s:g} s for each check"


class FirstCall:
    """The first call of a reward, which shows whether it is slow, or hangs.

    Args:
        tested: Reward under test.
        say: Receiver of the line about a slow reward.
    """

    def __init__(self, tested: RewardUnderTest, say: Callable[[str], object]) -> None:
        self._tested = tested
        self._say = say
        self.hangs = False

    def run(self, limits: TimeLimits) -> None:
        """Loads the reward and scores the probe images; errors are left to the checks."""
        left = limits.left()
        if left is not None and left <= 0:
            return
        from ddpo.rewards.check.global_state import preserved

        with preserved():
            if self._ended(lambda: self._tested.reward, left, "its loading"):
                started = time.monotonic()
                if self._ended(lambda: self._tested.scores, limits.left(), "its first call"):
                    self._say_if_slow((time.monotonic() - started) / PROBES)

    def _ended(self, call: Callable[[], object], left: float | None, what: str) -> bool:
        """True if a call ended without an error; a line says that it takes long."""

        def guarded() -> bool:
            try:
                call()
            except INTERRUPTS:
                raise
            except BaseException:  # noqa: BLE001  # the checks report it
                return False
            return True

        work = Background(guarded, THREAD)
        if left is None or left > WAIT_S:
            with suppress(TimeoutError):
                return work.result(WAIT_S)
            self._say(f"is slow: {what} has taken {WAIT_S:g} s so far")
            left = None if left is None else left - WAIT_S
        try:
            return work.result(left)
        except TimeoutError:
            self.hangs = True
            return False

    def _say_if_slow(self, seconds: float) -> None:
        """Says how long the checks of a slow reward take.

        Args:
            seconds: Seconds per image.
        """
        if seconds >= SLOW_S:
            need = duration(seconds * CALLED)
            self._say(f"takes {seconds:.1f} s per image; the checks need about {need}")
