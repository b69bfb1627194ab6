"""The promise that the conditioning of a text does not depend on other texts."""

from __future__ import annotations

from ddpo.model_check.model_under_test import TEXTS, ModelUnderTest, same
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["conditioning_per_item"]


def conditioning_per_item(tested: ModelUnderTest) -> str | None:
    """`encode` gives a text the same bits in a batch and alone, and other texts other bits."""
    batch = tested.fresh().encode(list(TEXTS))
    if len(batch) != len(TEXTS):
        raise CheckFailed(f"encode gives {len(batch)} items for {len(TEXTS)} texts")
    alone = tested.fresh()
    for place, text in enumerate(TEXTS):
        if not same(batch[place : place + 1], alone.encode([text])):
            raise CheckFailed(f"{text!r} has another conditioning in a batch than alone")
    again = tested.policy.encode([TEXTS[1], TEXTS[0], TEXTS[1]])
    if not (same(again[:1], batch[1:2]) and same(again[2:], batch[1:2])):
        raise CheckFailed("a text has another conditioning at another place of a batch")
    if same(batch[:1], batch[1:2]):
        raise CheckFailed(f"{TEXTS[0]!r} and {TEXTS[1]!r} have the same conditioning")
    return None
