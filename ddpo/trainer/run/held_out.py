"""The held-out reward of a run, by which its checkpoints are compared."""

from __future__ import annotations

import math
from typing import Final

from ddpo.devices import AUTO
from ddpo.distributed import ALONE, World
from ddpo.errors import ConfigError
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, sample_images
from ddpo.prompts import load_prompts
from ddpo.rewards.scoring.resolve import ResolvedReward, single_rewards
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve as resolve_reward
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.rollout import sampler_settings
from ddpo.types import ImageBatch

__all__ = ["HeldOutReward"]

IMAGES: Final = 2
"""Images of each held-out prompt."""

FIRST_INDEX: Final = -1000
"""Index of their noise, which neither training (0 …) nor the image grids (-1, -2) use."""


class HeldOutReward:
    """The held-out reward, which scores a policy on held-out prompts from the same noise.

    Args:
        config: settings of the run.
        training: the reward that is trained on.
        device: torch device of the run, where the reward runs unless it names another.

    Raises:
        ConfigError: the reward is trained on, even as a part of a sum, or compares images.
        UserError: the reward or the prompts cannot be found or loaded.
    """

    def __init__(self, config: TrainConfig, training: ResolvedReward, device: str = AUTO) -> None:
        self.config = config
        reward = resolve_reward(config.held_out).on(device)
        if _names(reward) & _names(training):
            raise ConfigError(
                f"held_out = {config.held_out!r} is trained on ({config.reward!r}): the best "
                "checkpoint by the training reward is the one that games it most; "
                "name another reward"
            )
        if "group" in reward.card.inputs:
            raise ConfigError(
                f"held_out = {config.held_out!r} compares the images of a prompt with each other: "
                "it has no mean to compare"
            )
        self.scorer = make_scorer(reward)
        self.signature = reward.signature
        prompts = load_prompts(config.held_out_prompts).prompts
        self.keys = [
            SampleKey(prompt, FIRST_INDEX - copy) for prompt in prompts for copy in range(IMAGES)
        ]

    def score(self, policy: Policy, world: World = ALONE) -> float | None:
        """Mean score of the policy's images, on the main process; None if none could be scored.

        The other processes join in the calls of a sharded denoiser.

        Raises:
            RewardFailure: the reward failed.
        """
        if not (world.is_main or world.sharded):
            return None
        values: list[float] = []
        settings = sampler_settings(self.config.sample)
        for batch in sample_images(policy, self.keys, settings, self.config.seed):
            with world.in_lockstep():
                values += self._known(batch) if world.is_main else []
        return sum(values) / len(values) if values else None

    def _known(self, batch: ImageBatch) -> list[float]:
        """The scores of the images that can be scored."""
        levels = self.scorer.reward.card.pixels == "uint8"
        output = self.scorer.score(ImageBatch.off_device(batch.pixels, batch.prompts, levels))
        return [value for value in output.values.cpu().double().tolist() if not math.isnan(value)]


def _names(reward: ResolvedReward) -> set[tuple[str, str]]:
    """Id and origin of each reward that a reward combines, or of the reward itself."""
    return {(one.card.id, one.origin) for one in single_rewards(reward)}
