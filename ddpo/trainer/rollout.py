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
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput, Rollout, Trajectory

__all__ = ["check_scorable", "collect", "draw_keys", "joined", "sampler_settings"]


def sampler_settings(config: SampleConfig) -> SamplerSettings:
    """The sampler's part of the settings."""
    return SamplerSettings(steps=config.steps, guidance=config.guidance, eta=config.eta, batch=config.batch)


def draw_keys(
    prompts: Sequence[Prompt], config: SampleConfig, seed: int, iteration: int, weights: Sequence[int] | None = None
) -> list[SampleKey]:
    """The pictures of an iteration: `samples / per_prompt` prompts, `per_prompt` pictures each.

    Prompts come in cycles: each is drawn as often as its weight (once, without weights), in random order, before the next cycle begins.
    Depends on the seed and the iteration alone, so that a resumed run draws what it would have drawn.

    Args:
        prompts: the list.
        config: how many pictures.
        seed: of the run.
        iteration: from 1.
        weights: how often each prompt is drawn in a cycle; None: once.
    """
    times = [1] * len(prompts) if weights is None else list(weights)
    places = [(prompt, copy, count) for prompt, count in zip(prompts, times, strict=True) for copy in range(count)]
    groups = config.samples // config.per_prompt
    first = (iteration - 1) * groups
    cycles = range(first // len(places), (first + groups - 1) // len(places) + 1)
    orders = {cycle: np.random.default_rng([seed, 0, cycle]).permutation(len(places)) for cycle in cycles}
    keys = []
    for position in range(first, first + groups):
        cycle, place = divmod(position, len(places))
        prompt, copy, count = places[int(orders[cycle][place])]
        keys += [SampleKey(prompt, (cycle * count + copy) * config.per_prompt + i) for i in range(config.per_prompt)]
    return keys


def sample_and_score(
    policy: Policy, keys: Sequence[SampleKey], scorer: Scorer, config: SampleConfig, seed: int, context: Context
) -> Rollout:
    """One batch of at most `config.batch` pictures. Rewards are told the `context`.

    Raises:
        RewardFailure: the reward broke.
    """
    trajectory = sample_trajectory(policy, keys, sampler_settings(config), seed)
    images = ImageBatch(policy.decode(trajectory.latents[:, -1]).cpu(), [key.prompt for key in keys], context)
    return Rollout(trajectory, images, scorer.score(images))


def collect(
    policy: Policy, keys: Sequence[SampleKey], scorer: Scorer, config: SampleConfig, seed: int, context: Context,
    first: Rollout | None = None,
) -> Generator[Progress, None, Rollout]:  # fmt: skip
    """Samples and scores `keys` in batches; yields progress, returns the rollout. `first` is its first batch if that is there already.

    Raises:
        RewardFailure: the reward broke.
    """
    parts: list[Rollout] = []
    for start in range(0, len(keys), config.batch):
        part = keys[start : start + config.batch]
        known = first if start == 0 else None
        parts.append(known or sample_and_score(policy, part, scorer, config, seed, context))
        yield Progress("sampling", start + len(part), len(keys))
    trajectory = Trajectory(torch.cat([p.trajectory.latents for p in parts]), torch.cat([p.trajectory.log_probs for p in parts]))
    images = ImageBatch(torch.cat([p.images.pixels for p in parts]), [prompt for p in parts for prompt in p.images.prompts], context)
    return Rollout(trajectory, images, joined([part.rewards for part in parts]))


def joined(outputs: Sequence[RewardOutput]) -> RewardOutput:
    """The scores of several batches, one after the other."""
    return RewardOutput(
        values=torch.cat([output.values for output in outputs]),
        parts={name: torch.cat([output.parts[name] for output in outputs]) for name in outputs[0].parts},
        errors=tuple(error for output in outputs for error in output.errors),
    )


def check_scorable(rewards: RewardOutput) -> RewardOutput:
    """Raises `RewardFailure` if not one picture could be scored; else gives back the scores."""
    if bool(rewards.values.isnan().all()):
        raise RewardFailure(f"the reward could score none of {len(rewards.values)} pictures; the first: {rewards.errors[0]}")
    return rewards
