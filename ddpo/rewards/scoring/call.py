"""One guarded call of a reward: contract, lock, time-out, retries. What the reward does wrong becomes one line with its name."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

import torch

from ddpo.errors import ContractBroken, RewardFailure, RewardUnavailable, UserError, one_line
from ddpo.io.background import Background
from ddpo.rewards.base import Reward
from ddpo.rewards.card import Calls
from ddpo.rewards.offload import restore
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["GuardedReward", "OutOfMemory"]

FIRST_PAUSE: Final = 0.5  # seconds before the first retry at most; doubles with each
LONGEST_PAUSE: Final = 30.0  # seconds


class OutOfMemory(RewardFailure):
    """A call for which the memory does not suffice; fewer pictures may do."""


class GuardedReward:
    """Calls a reward without gradient, one call at a time unless its card says that it is thread-safe.

    A call that lasts longer than the time-out is given up: Python cannot stop it, so its thread is left behind and ends with the process.

    Args:
        reward: the reward.
        calls: time-out, retries.
        pause: how to wait between retries; given seconds.

    Attributes:
        seconds: spent in calls so far, added up over those that ran at once.
    """

    def __init__(
        self, reward: Reward, calls: Calls, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.reward, self.calls, self.seconds = reward, calls, 0.0
        self._pause, self._clock = pause, threading.Lock()
        self._turn: threading.Lock | None = None if reward.card.thread_safe else threading.Lock()

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """The output for `batch`, with its tensors on the CPU.

        Raises:
            OutOfMemory: with fewer pictures it may work.
            ContractBroken: the output is not one.
            RewardUnavailable: its back end did not answer, as often as it was tried.
            RewardFailure: the reward raised, or, if it is never tried again, did not answer in time.
            UserError: as the reward itself raises.
        """
        for attempt in range(self.calls.retries):
            try:
                return self._once(batch)
            except RewardUnavailable as error:
                self._pause(_seconds_before_retry(attempt, error.retry_after_s))
        try:
            return self._once(batch)
        except RewardUnavailable as error:
            if self.calls.retries:
                raise RewardUnavailable(
                    f"{error}; tried {self.calls.retries + 1} times"
                ) from error.__cause__
            raise

    def _once(self, batch: ImageBatch) -> RewardOutput:
        name, edits, begun = self.reward.card.id, batch.edits, time.perf_counter()
        try:
            output = (
                self._in_turn(batch)
                if self.calls.timeout_s is None
                else self._in_time(batch, self.calls.timeout_s)
            )
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # a reward is foreign code and may raise anything
            raise _explained(name, error) from error
        finally:
            with self._clock:
                self.seconds += time.perf_counter() - begun
        if not isinstance(output, RewardOutput):
            raise ContractBroken(
                f"reward {name!r} returned a {type(output).__name__}, not a RewardOutput"
            )
        if len(output) != len(batch):
            raise ContractBroken(
                f"reward {name!r} returned {len(output)} scores for {len(batch)} images"
            )
        if batch.edits != edits:
            raise ContractBroken(f"reward {name!r} changed the pixels that it was given")
        parts = {part: value.detach().cpu().float() for part, value in output.parts.items()}
        return RewardOutput(output.values.detach().cpu(), parts, output.errors)

    def _in_turn(self, batch: ImageBatch) -> RewardOutput:
        restore()
        with torch.no_grad():
            if self._turn is None:
                return self.reward(batch)
            with self._turn:
                return self.reward(batch)

    def _in_time(self, batch: ImageBatch, seconds: float) -> RewardOutput:
        try:
            return Background(lambda: self._in_turn(batch), "ddpo-reward-call").result(seconds)
        except TimeoutError:
            if self._turn is not None and self._turn.locked():
                self._turn = threading.Lock()  # the call that hangs keeps the old one for good
            if (
                not self.calls.retries
            ):  # no back end that may come back: it is this call that takes too long
                raise RewardFailure(f"TimeoutError: no answer within {seconds:g} s") from None
            raise


def _seconds_before_retry(attempt: int, asked: float | None) -> float:
    """How long to wait: at random, so that many clients do not come back at once; at least as long as `asked`; never over 30 s."""
    pause = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))  # noqa: S311  # jitter is no secret
    return pause if asked is None else min(LONGEST_PAUSE, asked + pause)


def _explained(name: str, error: BaseException) -> RewardFailure:
    """The failure of reward `name` that stands for what it raised, by what can be done about it."""
    text = f"reward {name!r} failed: {one_line(error)}"
    if (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "out of memory" in str(error).lower()
    ):
        return OutOfMemory(text)
    if isinstance(error, ContractBroken):
        return ContractBroken(text)
    if isinstance(error, (RewardUnavailable, ConnectionError, TimeoutError)):
        unavailable = RewardUnavailable(text)
        unavailable.retry_after_s = getattr(error, "retry_after_s", None)
        return unavailable
    return RewardFailure(text)
