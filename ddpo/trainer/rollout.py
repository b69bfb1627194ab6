"""Collects one iteration's trajectories, pictures and rewards."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch

from ddpo.errors import RewardFailure
from ddpo.policies.policy import Policy
from ddpo.policies.sample import SampleKey, SamplerSettings, sample_trajectory
from ddpo.rewards.scorer import Scorer
from ddpo.trainer.config import SampleConfig
from ddpo.trainer.events import Progress
from ddpo.trainer.scoring import RolloutScorer
from ddpo.types import Context, ImageBatch, Prompt, Rollout, Trajectory

__all__ = ["collect", "draw_keys", "sampler_settings"]


def sampler_settings(config: SampleConfig) -> SamplerSettings:
    """The sampler's part of the settings."""
    return SamplerSettings(steps=config.steps, guidance=config.guidance, eta=config.eta, batch=config.batch)


def draw_keys(prompts: Sequence[Prompt], config: SampleConfig, seed: int, iteration: int) -> list[SampleKey]:
    """The pictures of an iteration: `samples / per_prompt` prompts, each drawn once before any is drawn again, `per_prompt` pictures each.

    Depends on the seed and the iteration alone, so that a resumed run draws what it would have drawn.
    """
    groups = config.samples // config.per_prompt
    first = (iteration - 1) * groups
    keys = []
    for position in range(first, first + groups):
        cycle, place = divmod(position, len(prompts))
        order = np.random.default_rng([seed, 0, cycle]).permutation(len(prompts))
        prompt = prompts[int(order[place])]
        keys += [SampleKey(prompt, cycle * config.per_prompt + i) for i in range(config.per_prompt)]
    return keys


def collect(
    policy: Policy, keys: Sequence[SampleKey], scorer: Scorer, config: SampleConfig, seed: int, context: Context
) -> Generator[Progress, None, Rollout]:
    """Samples and scores `keys` in batches; yields progress, returns the rollout. Rewards are told the `context`.

    Raises:
        RewardUnavailable: the reward's back end does not answer.
        RewardFailure: the reward is broken, or it could score none of the pictures.
    """
    settings = sampler_settings(config)
    trajectories: list[Trajectory] = []
    pictures: list[ImageBatch] = []
    scoring = RolloutScorer(scorer)
    for start in range(0, len(keys), settings.batch):
        part = keys[start : start + settings.batch]
        trajectory = sample_trajectory(policy, part, settings, seed)
        images = ImageBatch(policy.decode(trajectory.latents[:, -1]).cpu(), [key.prompt for key in part], context)
        trajectories.append(trajectory)
        pictures.append(images)
        scoring.add(images)
        yield Progress("sampling", start + len(part), len(keys))
    rewards = scoring.rewards()
    if bool(rewards.values.isnan().all()):
        raise RewardFailure(f"the reward could score none of {len(keys)} pictures; the first: {rewards.errors[0]}")
    trajectory = Trajectory(torch.cat([t.latents for t in trajectories]), torch.cat([t.log_probs for t in trajectories]))
    images = ImageBatch(torch.cat([p.pixels for p in pictures]), [prompt for p in pictures for prompt in p.prompts], context)
    return Rollout(trajectory, images, rewards)
