"""The held-out reward of a run, by which its checkpoints are compared."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
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
from ddpo.trainer.monitoring.events import Finding
from ddpo.trainer.monitoring.held_out_findings import held_out_findings
from ddpo.trainer.rollout import sampler_settings
from ddpo.trainer.run.stopping import CheckpointScores
from ddpo.types import ImageBatch, Prompt, RewardOutput

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

    def findings(self, training: ResolvedReward, trained: Sequence[Prompt]) -> list[Finding]:
        """The reasons why this reward says less than it should; none if all is well.

        Args:
            training: the reward that is trained on.
            trained: the prompts of the training.
        """
        return held_out_findings(self.config, self.reward, training, self.prompts, trained)

    def score(
        self, policy: Policy, iteration: int, world: World = ALONE
    ) -> CheckpointScores | None:
        """The scores of the policy's images, on the main process; None on the others.

        A warning is given if more than half of the images have no score. The other processes join
        in the calls of a sharded denoiser.

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
        errors: list[str | None] = []
        settings = sampler_settings(self.config.sample)
        for batch in sample_images(policy, self.keys, settings, self.config.seed):
            with world.in_lockstep():
                if world.is_main:
                    output = self._output(batch)
                    values += output.values.cpu().double().tolist()
                    errors += output.errors
        if not world.is_main:
            return None
        _warn_if_unscorable(values, errors, iteration)
        starts = range(0, len(values), IMAGES)
        by_prompt = tuple(tuple(values[start : start + IMAGES]) for start in starts)
        return CheckpointScores(iteration, self.signature, by_prompt)

    def _output(self, batch: ImageBatch) -> RewardOutput:
        """The scores of a batch; NaN for an image that cannot be scored."""
        levels = self.scorer.reward.card.pixels == "uint8"
        return self.scorer.score(ImageBatch.off_device(batch.pixels, batch.prompts, levels))


def _warn_if_unscorable(
    values: Sequence[float], errors: Sequence[str | None], iteration: int
) -> None:
    """Warns if more than half of the held-out images have no score, with the first reason."""
    lost = [place for place, value in enumerate(values) if math.isnan(value)]
    if 2 * len(lost) > len(values):
        warnings.warn(
            f"iteration {iteration}: {len(lost)} of {len(values)} held-out images are unscorable; "
            f"the first: {errors[lost[0]]}",
            stacklevel=3,
        )
