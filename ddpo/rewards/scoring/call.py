"""One call of a reward: its contract, the kinds of failures, and the pauses before retries."""

from __future__ import annotations

import random
import threading
from typing import Final

import torch

from ddpo.author_errors import author_line
from ddpo.devices import processors
from ddpo.errors import INTERRUPTS, ContractBroken, RewardFailure, RewardUnavailable
from ddpo.rewards.base import Reward
from ddpo.rewards.card import Calls
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["OutOfMemory", "checked", "concurrency", "explained", "is_interrupt", "retry_pause"]

FIRST_PAUSE: Final = 0.5  # longest pause before the first retry, in seconds; doubles with each
LONGEST_PAUSE: Final = 30.0  # seconds


class OutOfMemory(RewardFailure):
    """A call that needs more memory than there is; fewer images may fit."""


def checked(name: str, output: object, batch: ImageBatch, edits: int) -> RewardOutput:
    """The output of a call on the CPU, without gradient.

    Args:
        name: Id of the reward.
        output: Return value of the reward.
        batch: Images of the call.
        edits: `batch.edits` before the call.

    Raises:
        ContractBroken: The output is not one score per image, or the reward changed the pixels.
    """
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


def explained(name: str, error: BaseException) -> RewardFailure:
    """The failure of a reward for an exception that it raised, by its remedy.

    Args:
        name: Id of the reward.
        error: Exception raised by the reward.
    """
    text = f"reward {name!r} failed: {author_line(error)}"
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if memory or "out of memory" in text.lower():
        return OutOfMemory(text)
    if isinstance(error, ContractBroken):
        return ContractBroken(text)
    if isinstance(error, (RewardUnavailable, ConnectionError, TimeoutError)):
        unavailable = RewardUnavailable(text)
        unavailable.retry_after_s = getattr(error, "retry_after_s", None)
        return unavailable
    return RewardFailure(text)


def is_interrupt(error: BaseException) -> bool:
    """True for what stops work from outside.

    Ctrl-C reaches the main thread alone, so that a `KeyboardInterrupt` elsewhere is the reward's.
    """
    if isinstance(error, KeyboardInterrupt):
        return threading.current_thread() is threading.main_thread()
    return isinstance(error, INTERRUPTS)


def retry_pause(attempt: int, requested: float | None) -> float:
    """The pause before a retry, random so that many clients do not return at once.

    Args:
        attempt: 0-based number of the failed attempt.
        requested: Seconds for which the back end asked to be left alone; None if it did not.

    Returns:
        Seconds: at least `requested`, and at most `LONGEST_PAUSE`.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    pause = random.uniform(0, longest)  # noqa: S311  # jitter is no secret
    return pause if requested is None else min(LONGEST_PAUSE, requested + pause)


def concurrency(reward: Reward, calls: Calls) -> int:
    """Number of calls that may run at once."""
    if not reward.card.thread_safe:
        return 1
    if calls.concurrency:
        return calls.concurrency
    return processors() if reward.card.device == "cpu" else 1
