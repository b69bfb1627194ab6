"""Checks of the call itself: type, number and order of the scores."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ddpo.errors import INTERRUPTS, MissingResourceError, one_line
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check, failing
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, RewardUnderTest
from ddpo.types import ImageBatch, Prompt

__all__ = ["CHECKS"]

SHUFFLED = (3, 0, 5, 1, 4, 2)


@check("card")
def construction(tested: RewardUnderTest) -> str | None:
    """It can be made, has the card under which it was found, and `close()` may be called twice.

    Only the fields `calls`, `thread_safe` and `cache` may differ, since they depend on the back
    end.
    """
    try:
        reward = tested.make_or_raise()
    except MissingResourceError as error:
        raise CheckSkipped(one_line(error)) from error
    card = tested.card
    own = replace(reward.card, calls=card.calls, thread_safe=card.thread_safe, cache=card.cache)
    if own != card:
        other = f"{reward.card.id!r}, version {reward.card.version}"
        raise CheckFailed(f"the reward that was made has another card ({other})")
    if tested.can_remake and callable(getattr(reward, "close", None)):
        second: Any = tested.resolved.make()  # `close` is no part of the protocol
        for time in ("first", "second"):
            with failing(f"the {time} close() raised "):
                second.close()
    return None


@check("reward")
def contract(tested: RewardUnderTest) -> str | None:
    """Six images give six float32 scores on the CPU, finite or NaN with a reason.

    At least one of them is finite.
    """
    output = tested.score(tested.probes())
    values = output.values.tolist()
    if all(math.isnan(value) for value in values):
        hint = "; give a prompt with its metadata" if "metadata" in tested.card.inputs else ""
        raise CheckFailed(f"none of the probe images could be scored: {output.errors[0]}{hint}")
    return ", ".join(f"{name} {value:.5g}" for name, value in zip(PROBE_NAMES, values, strict=True))


@check("scores")
def empty_batch(tested: RewardUnderTest) -> str | None:
    """A batch without images gives no scores, and no error."""
    tested.score(tested.batch([]))
    return None


@check("scores")
def single_picture(tested: RewardUnderTest) -> str | None:
    """A batch of one image gives a tensor with one score, not a number without axes."""
    if tested.grouped:
        raise CheckSkipped("the card says that groups are judged")
    for image, prompt in zip(tested.images[:2], tested.prompts[:2], strict=True):
        tested.score(tested.batch([image], [prompt]))
    return None


@check("scores")
def order(tested: RewardUnderTest) -> str | None:
    """The scores are in the order of the images: shuffled images give scores shuffled alike."""
    if not tested.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")
    if len(set(tested.scores)) < 2:
        raise CheckSkipped("all probe images have the same score")
    images = [tested.images[i] for i in SHUFFLED]
    scores = tested.values(tested.batch(images, [tested.prompts[i] for i in SHUFFLED]))
    expected = [tested.scores[i] for i in SHUFFLED]
    names = [PROBE_NAMES[i] for i in SHUFFLED]
    return tested.compare_scores(scores, expected, "at another place of the batch", names)


@check("scores")
def no_silent_score(tested: RewardUnderTest) -> str | None:
    """An image that cannot be scored raises an error or gets NaN with a reason, never a number.

    Tried are an image whose pixels are NaN and, if the card lists metadata, prompts without it.
    All six probe images scoring exactly 0 is a failure too.
    """
    if all(score == 0 for score in tested.scores):
        raise CheckFailed("six different images all score exactly 0")
    pixels = tested.probes().pixels.clone()
    pixels[1] = math.nan
    score = _values_or_nan(tested, ImageBatch(pixels, tested.prompts))[1]
    if not math.isnan(score):
        raise CheckFailed(f"an image whose pixels are NaN gets the score {score:g}")
    if "metadata" in tested.card.inputs:
        _no_zero_without_metadata(tested)
    return None


def _no_zero_without_metadata(tested: RewardUnderTest) -> None:
    bare = [Prompt(prompt.text) for prompt in tested.prompts]
    if all(value == 0 for value in _values_or_nan(tested, tested.batch(tested.images, bare))):
        raise CheckFailed("images without the metadata that it needs score exactly 0")


def _values_or_nan(tested: RewardUnderTest, batch: ImageBatch) -> list[float]:
    try:
        return tested.values(batch)
    except INTERRUPTS:
        raise
    except BaseException:  # noqa: BLE001  # an error is right here, and a reward may raise any
        return [math.nan] * len(batch)


CHECKS = (construction, contract, empty_batch, single_picture, order, no_silent_score)
