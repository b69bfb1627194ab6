"""The weights of algorithms that compare images by their advantages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpo.trainer.config import TrainConfig

if TYPE_CHECKING:
    from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights

__all__ = ["AdvantageWeights"]


class AdvantageWeights:
    """Base of algorithms whose weight of an image is its advantage."""

    __slots__ = ()

    def weigh(
        self,
        rewards: Floats,
        prompt_ids: Sequence[str],
        statistics: PromptStatistics,
        config: TrainConfig,
    ) -> SampleWeights:
        """The advantages of the images, of the kind that the settings name.

        Args:
            rewards: Rewards of the iteration, float64 `[batch]`, NaN where unscorable.
            prompt_ids: Prompt id of each image, `[batch]`.
            statistics: Running statistics of the prompts, changed in place.
            config: Settings of the run.
        """
        from ddpo.trainer.advantages import advantages  # numpy slows a mistyped command

        return advantages(rewards, prompt_ids, statistics, config.advantage)
