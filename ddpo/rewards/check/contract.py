"""Checks of the call itself: what comes back, for how many, in which order."""

from __future__ import annotations

import math
from dataclasses import replace

from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, RewardUnderTest
from ddpo.types import ImageBatch, Prompt

__all__ = ["CHECKS"]

SHUFFLED = (3, 0, 5, 1, 4, 2)


@check("card")
def construction(subject: RewardUnderTest) -> str | None:
    """It can be made, has the card under which it was found, and `close()` may be called twice."""
    try:
        reward = subject.make_or_raise()
    except MissingResourceError as error:
        raise CheckSkipped(one_line(error)) from error
    due = subject.card
    if (
        replace(reward.card, calls=due.calls, thread_safe=due.thread_safe, cache=due.cache) != due
    ):  # these depend on the back end
        raise CheckFailed(
            f"the reward that was made has another card ({reward.card.id!r}, "
            f"version {reward.card.version})"
        )
    if subject.can_remake and callable(getattr(reward, "close", None)):
        other = subject.found.make()
        for time in ("first", "second"):
            try:
                getattr(other, "close")()  # noqa: B009  # no part of the protocol
            except Exception as error:
                raise CheckFailed(f"the {time} close() raised {one_line(error)}") from error
    return None


@check("reward")
def contract(subject: RewardUnderTest) -> str | None:
    """Six images give six float32 scores on the CPU, finite or NaN with a reason, not all NaN."""
    output = subject.score(subject.probes())
    values = output.values.tolist()
    if all(math.isnan(value) for value in values):
        hint = "; give a prompt with its metadata" if "metadata" in subject.card.inputs else ""
        raise CheckFailed(f"none of the probe pictures could be scored: {output.errors[0]}{hint}")
    return ", ".join(f"{name} {value:.5g}" for name, value in zip(PROBE_NAMES, values, strict=True))


@check("scores")
def empty_batch(subject: RewardUnderTest) -> str | None:
    """A batch without images gives no scores, and no error."""
    subject.score(subject.batch([]))
    return None


@check("scores")
def single_picture(subject: RewardUnderTest) -> str | None:
    """A batch of one image gives a tensor with one score, not a number without axes."""
    if subject.grouped:
        raise CheckSkipped("the card says that groups are judged")
    for picture, prompt in zip(subject.pictures[:2], subject.prompts[:2], strict=True):
        subject.score(subject.batch([picture], [prompt]))
    return None


@check("scores")
def order(subject: RewardUnderTest) -> str | None:
    """The scores are in the order of the images: shuffled images give scores shuffled alike."""
    if not subject.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")
    if len(set(subject.scores)) < 2:
        raise CheckSkipped("all probe pictures have the same score")
    batch = subject.batch(
        [subject.pictures[i] for i in SHUFFLED], [subject.prompts[i] for i in SHUFFLED]
    )
    due = [subject.scores[i] for i in SHUFFLED]
    names = [PROBE_NAMES[i] for i in SHUFFLED]
    return subject.same_or_fault(subject.values(batch), due, "at another place of the batch", names)


@check("scores")
def no_silent_score(subject: RewardUnderTest) -> str | None:
    """An image that cannot be scored raises or gets NaN with a reason, never a number such as 0."""
    if all(score == 0 for score in subject.scores):
        raise CheckFailed("six different pictures all score exactly 0")
    pixels = subject.probes().pixels.clone()
    pixels[1] = math.nan
    found = _values_or_nan(subject, ImageBatch(pixels, subject.prompts))[1]
    if not math.isnan(found):
        raise CheckFailed(f"a picture whose pixels are NaN gets the score {found:g}")
    if "metadata" in subject.card.inputs:
        _no_zero_without_metadata(subject)
    return None


def _no_zero_without_metadata(subject: RewardUnderTest) -> None:
    bare = [Prompt(prompt.text) for prompt in subject.prompts]
    if all(value == 0 for value in _values_or_nan(subject, subject.batch(subject.pictures, bare))):
        raise CheckFailed("pictures without the metadata that it needs score exactly 0")


def _values_or_nan(subject: RewardUnderTest, batch: ImageBatch) -> list[float]:
    try:
        return subject.values(batch)
    except Exception:  # noqa: BLE001  # to raise is right here, and a reward may raise anything
        return [math.nan] * len(batch)


CHECKS = (construction, contract, empty_batch, single_picture, order, no_silent_score)
