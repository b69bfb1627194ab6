"""The events that a training run yields, for displays, trackers and callers that stop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = [
    "Checked",
    "Checkpointed",
    "Event",
    "Finding",
    "GridSaved",
    "IterationDone",
    "Metrics",
    "Progress",
    "Started",
    "StepStats",
    "Stopped",
]


@dataclass(frozen=True, slots=True)
class StepStats:
    """Statistics of the items of one denoising step over an iteration."""

    step: int  # 0 is the first, at the most noise
    ratio_deviation: float  # mean |ratio - 1|
    clip_fraction: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """One line of `metrics.jsonl`.

    Repeated on the same CPU, a run has the same metrics but for `seconds…`.

    Attributes:
        iteration: 1-based iteration number.
        reward_queries: images scored since the start of the run.
        reward_mean: mean reward over the scored images.
        reward_se: standard error over these images; None if only one was scored.
        unscorable: number of images without a score.
        reward_parts: mean native score of each part of the reward; None for a part without any.
        zero_spread: number of images without an advantage because their rewards are equal.
        loss: mean loss over all trained items.
        ratio_mean_deviation: mean |ratio - 1| over all trained items; None: no ratios.
        ratio_first_deviation: largest |ratio - 1| before the first update, which is 0.
        clip_fraction: share of items whose ratio left 1 ± `optim.clip_range`.
        approx_kl: mean of (log ratio)² / 2.
        reference_kl: mean KL of a denoising step to the reference policy, per latent dimension;
            None unless `optim.kl` is set.
        by_step: ratio and clip fraction of each trained denoising step.
        grad_norm: mean over the updates, before clipping.
        updates: number of optimizer steps that were taken.
        unscorable_reason: reason of the first unscorable image.
        seconds: time of the iteration: sampling, scoring and updating.
        seconds_sampling: time of sampling and scoring.
        seconds_training: time of updating.
        held_out: at a checkpoint, mean of the held-out reward; None: not measured.
    """

    iteration: int
    reward_queries: int
    reward_mean: float
    reward_se: float | None
    unscorable: int
    reward_parts: Mapping[str, float | None]
    zero_spread: int
    loss: float
    ratio_mean_deviation: float | None
    ratio_first_deviation: float | None
    clip_fraction: float | None
    approx_kl: float | None
    reference_kl: float | None
    by_step: Sequence[StepStats]
    grad_norm: float
    updates: int
    unscorable_reason: str | None
    seconds: float
    seconds_sampling: float
    seconds_training: float
    held_out: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The run is set up, with `iteration` iterations done before it was resumed."""

    iteration: int
    total: int
    summary: str  # the effective batch in words


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check before the first iteration."""

    topic: str  # one word
    text: str
    good: bool = True  # False: the run continues, but its user should know


@dataclass(frozen=True, slots=True)
class Checked:
    """The checks before the first iteration are done."""

    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Progress:
    """A part of an iteration is done; counts are images, or items in training."""

    stage: Literal["checking", "sampling", "training"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class IterationDone:
    """An iteration is finished and its state is on disk."""

    metrics: Metrics
    worst: tuple[str, float]  # prompt and mean reward
    best: tuple[str, float]
    memory: int = 0  # bytes: peak of this process so far, on the GPU if it trains there


@dataclass(frozen=True, slots=True)
class GridSaved:
    """An image grid of fixed prompts and noise was written."""

    path: Path


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint was written; the state of its iteration is not on disk yet."""

    folder: Path


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ends early, by its setting `stop_when`. It is the last event of a run."""

    iteration: int  # 1-based number of its last iteration
    best: int  # 1-based iteration number of its best checkpoint
    reason: str


Event = Started | Checked | Progress | IterationDone | GridSaved | Checkpointed | Stopped
