"""The metrics of an iteration, its best and worst prompt, and the peak of memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo.policies.sampler import SampleKey
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.monitoring.events import Metrics
from ddpo.trainer.rollout import IterationSamples
from ddpo.trainer.update import UpdateStats
from ddpo.types import RewardOutput

__all__ = ["extremes", "iteration_metrics", "peak_memory"]


def iteration_metrics(
    iteration: int,
    samples: IterationSamples,
    weights: SampleWeights,
    stats: UpdateStats,
    held_out: float | None,
) -> Metrics:
    """The line of `metrics.jsonl` of one iteration.

    Args:
        iteration: 1-based iteration number.
        samples: rewards of all images, and the seconds that sampling and scoring took.
        weights: weights of these images.
        stats: statistics of the updates.
        held_out: mean score by the held-out reward; None if it was not measured.
    """
    rewards = samples.rewards
    scored = samples.reward_values[weights.scored]
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
        seconds=samples.seconds + stats.seconds,
        seconds_sampling=samples.seconds,
        seconds_training=stats.seconds,
        held_out=held_out,
    )


def _part_means(output: RewardOutput, scored: NDArray[np.bool_]) -> dict[str, float | None]:
    """Mean of each part over the scored images; None for a part that has no value there."""
    means: dict[str, float | None] = {}
    for name, part in output.parts.items():
        values = part.cpu().double().numpy()[scored]
        known = values[~np.isnan(values)]
        means[name] = float(known.mean()) if len(known) else None
    return means


def extremes(
    keys: Sequence[SampleKey], rewards: RewardOutput
) -> tuple[tuple[str, float], tuple[str, float]]:
    """The prompts with the lowest and the highest mean reward, each with that mean."""
    scores: dict[str, list[float]] = {}
    for key, value in zip(keys, rewards.values.tolist(), strict=True):
        if not math.isnan(value):
            scores.setdefault(key.prompt.text, []).append(value)
    ranked = sorted((float(np.mean(values)), text) for text, values in scores.items())
    return (ranked[0][1], ranked[0][0]), (ranked[-1][1], ranked[-1][0])


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a CUDA device, else the most that this process held.

    0 if the system does not report it.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
