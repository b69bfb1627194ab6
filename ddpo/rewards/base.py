"""The `Reward` protocol, which every reward model follows."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ddpo.rewards.card import RewardCard
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Reward"]


@runtime_checkable
class Reward(Protocol):
    """Scores a batch of images of one size: one value per image, in order, on its native scale.

    - `batch.context` holds the progress of training; a card lists "context" if the score uses it.
    - An image that cannot be scored gets NaN, and a reason in `RewardOutput.errors`.
    - A broken back end raises.
    - The trainer maximises the value as it stands: `compressibility` is minus the size.
    """

    card: RewardCard

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        ...
