"""The `Reward` protocol: what a reward model is to the rest of the program."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ddpo.rewards.card import RewardCard
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Reward"]


@runtime_checkable
class Reward(Protocol):
    """Scores pictures. Called with `ImageBatch` of one size; returns one value per picture, in order, on its native scale.

    `batch.context` holds the circumstances, such as the progress of the training; a card lists "context" if they move the score.
    A picture that cannot be scored gets NaN and a reason in `RewardOutput.errors`. A broken back end raises.
    The trainer maximises the value as it stands: `compressibility` is minus the size.
    """

    card: RewardCard

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        ...
