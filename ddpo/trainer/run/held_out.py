"""The held-out reward of a run, by which its checkpoints are compared."""

from __future__ import annotations

from typing import Final

from ddpo.devices import AUTO
from ddpo.distributed import ALONE, World
from ddpo.errors import ConfigError
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, sample_images
from ddpo.prompts import load_prompts
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve as resolve_reward
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.independent import check_not_trained
from ddpo.trainer.rollout import sampler_settings
from ddpo.trainer.run.stopping import CheckpointScores
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
        check_not_trained(reward, training, config.held_out, config.reward)
        if "group" in reward.card.inputs:
            raise ConfigError(
                f"held_out = {config.held_out!r} compares the images of a prompt with each other: "
                "it has no mean to compare"
            )
        self.reward = reward
        self.scorer = make_scorer(reward)
        self.signature = reward.signature
        self.prompts = load_prompts(config.held_out_prompts).prompts
        self.keys = [
            SampleKey(prompt, FIRST_INDEX - copy)
            for prompt in self.prompts
            for copy in range(IMAGES)
        ]

    def score(
        self, policy: Policy, iteration: int, world: World = ALONE
    ) -> CheckpointScores | None:
        """The scores of the policy's images, on the main process; None on the others.

        The other processes join in the calls of a sharded denoiser.

        Args:
            policy: the policy after the iteration.
            iteration: 1-based iteration number.
            world: the processes of the run.

        Raises:
            RewardFailure: the reward failed.
        """
        if not (world.is_main or world.sharded):
            return None
        values: list[float] = []
        settings = sampler_settings(self.config.sample)
        for batch in sample_images(policy, self.keys, settings, self.config.seed):
            with world.in_lockstep():
                values += self._scores(batch) if world.is_main else []
        if not world.is_main:
            return None
        starts = range(0, len(values), IMAGES)
        by_prompt = tuple(tuple(values[start : start + IMAGES]) for start in starts)
        return CheckpointScores(iteration, self.signature, by_prompt)

    def _scores(self, batch: ImageBatch) -> list[float]:
        """The score of each image; NaN for one that cannot be scored."""
        levels = self.scorer.reward.card.pixels == "uint8"
        output = self.scorer.score(ImageBatch.off_device(batch.pixels, batch.prompts, levels))
        scores: list[float] = output.values.cpu().double().tolist()
        return scores
