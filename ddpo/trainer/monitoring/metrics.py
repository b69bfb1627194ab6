"""What an iteration is, in words, and what it is remembered by: its line of `metrics.jsonl`, best and worst prompt, peak of memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo.policies.policy import TrainablePolicy
from ddpo.policies.sampler import SampleKey
from ddpo.prompts import PromptSet
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Metrics
from ddpo.trainer.processes import World
from ddpo.trainer.update import UpdateStats
from ddpo.types import RewardOutput

__all__ = ["extremes", "iteration_metrics", "peak_memory", "summary"]


def iteration_metrics(
    iteration: int,
    rewards: RewardOutput,
    weights: SampleWeights,
    stats: UpdateStats,
    *,
    sampling: float,
    training: float,
    held_out: float | None,
) -> Metrics:
    """The line of one iteration.

    Args:
        iteration: from 1.
        rewards: of all its pictures.
        weights: what the rewards became.
        stats: of the updates.
        sampling: seconds.
        training: seconds.
        held_out: score by the reward that is not trained on.
    """
    scored = rewards.values.cpu().double().numpy()[weights.scored]
    return Metrics(
        iteration=iteration,
        reward_queries=iteration * len(weights.scored),
        reward_mean=float(scored.mean()),
        reward_se=float(scored.std(ddof=1) / math.sqrt(len(scored))) if len(scored) > 1 else None,
        unscorable=int((~weights.scored).sum()),
        unscorable_reason=next((reason for reason in rewards.errors if reason is not None), None),
        reward_parts=_part_means(rewards, weights.scored),
        zero_spread=weights.zero_spread,
        loss=stats.loss,
        ratio_mean_deviation=stats.ratio_mean_deviation,
        ratio_first_deviation=stats.ratio_first_deviation,
        clip_fraction=stats.clip_fraction,
        approx_kl=stats.approx_kl,
        reference_kl=stats.reference_kl,
        by_step=stats.by_step,
        grad_norm=stats.grad_norm,
        updates=stats.updates,
        seconds=sampling + training,
        seconds_sampling=sampling,
        seconds_training=training,
        held_out=held_out,
    )


def _part_means(output: RewardOutput, scored: NDArray[np.bool_]) -> dict[str, float | None]:
    """The mean of each part over the pictures that have a score, and the part a value."""
    means: dict[str, float | None] = {}
    for name, part in output.parts.items():
        values = part.cpu().double().numpy()[scored]
        known = values[~np.isnan(values)]
        means[name] = float(known.mean()) if len(known) else None
    return means


def extremes(
    keys: Sequence[SampleKey], rewards: RewardOutput
) -> tuple[tuple[str, float], tuple[str, float]]:
    """The prompts with the lowest and the highest mean reward."""
    scores: dict[str, list[float]] = {}
    for key, value in zip(keys, rewards.values.tolist(), strict=True):
        if not math.isnan(value):
            scores.setdefault(key.prompt.text, []).append(value)
    ranked = sorted((float(np.mean(values)), text) for text, values in scores.items())
    return (ranked[0][1], ranked[0][0]), (ranked[-1][1], ranked[-1][0])


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a CUDA device so far, else the most that this process held; 0 where that is not told."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def summary(
    config: TrainConfig, policy: TrainablePolicy, prompts: PromptSet, processes: World
) -> str:
    """The effective batch in words."""
    sample, optim = config.sample, config.optim
    count = sum(parameter.numel() for _, parameter in policy.trainable_parameters())
    steps = optim.updates * optim.epochs
    updates = f"{steps} update{'s' * (steps > 1)}"
    sharded = ", sharded by FSDP" if processes.sharded else ""
    shares = (
        f"{processes.count} processes × {len(processes.share(sample))} = "
        if processes.count > 1
        else ""
    )
    return (
        f"{config.algorithm} on {config.model}, {config.adapt.kind} ({count:,} parameters{sharded}); "
        f"{len(prompts)} prompts ({prompts.source}); "
        f"per iteration {shares}{sample.samples} pictures ({sample.samples // sample.per_prompt} prompts × {sample.per_prompt}), {updates}"
    )
