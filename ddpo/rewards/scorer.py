"""`Scorer`: calls a reward in micro-batches and holds it to its contract."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ddpo.errors import ConfigError, RewardFailure, UserError, one_line
from ddpo.rewards.base import Reward
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Scorer"]


class Scorer:
    """Scores batches of any length: order in is order out, and whatever the reward does wrong is told on one line.

    Args:
        reward: the reward to call.
        batch_size: pictures per call of the reward.

    Raises:
        ConfigError: the batch size is below 1.
    """

    def __init__(self, reward: Reward, batch_size: int = 16) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch size must be at least 1, got {batch_size}")
        self.reward, self.batch_size = reward, batch_size

    def score(self, batch: ImageBatch) -> RewardOutput:
        """One value per picture of `batch`, on the CPU, without gradient.

        Raises:
            RewardFailure: the reward raised, or returned something else than one float32 score per picture; names it and the cause.
            UserError: as the reward itself raises.
        """
        chunks = [self._call(batch[start : start + self.batch_size]) for start in range(0, len(batch), self.batch_size)]
        return _joined(chunks, self.reward.card.id)

    def _call(self, batch: ImageBatch) -> RewardOutput:
        name = self.reward.card.id
        try:
            with torch.no_grad():
                output = self.reward(batch)
        except UserError:
            raise
        except Exception as error:  # a reward is foreign code and may raise anything
            raise RewardFailure(f"reward {name!r} failed: {one_line(error)}") from error
        if not isinstance(output, RewardOutput):
            raise RewardFailure(f"reward {name!r} returned a {type(output).__name__}, not a RewardOutput")
        if len(output) != len(batch):
            raise RewardFailure(f"reward {name!r} returned {len(output)} scores for {len(batch)} images")
        return output


def _joined(chunks: Sequence[RewardOutput], name: str) -> RewardOutput:
    if not chunks:
        return RewardOutput(torch.zeros(0))
    names = list(chunks[0].parts)
    if any(set(chunk.parts) != set(names) for chunk in chunks):
        raise RewardFailure(f"reward {name!r} gave other parts for some batches than for others")
    parts = {part: torch.cat([chunk.parts[part].detach().cpu().float() for chunk in chunks]) for part in names}
    values = torch.cat([chunk.values.detach().cpu() for chunk in chunks])
    return RewardOutput(values, parts, tuple(error for chunk in chunks for error in chunk.errors))
