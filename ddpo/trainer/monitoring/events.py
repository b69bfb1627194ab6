"""The records that a training run yields, for whoever draws, logs or stops it."""

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
]


@dataclass(frozen=True, slots=True)
class StepStats:
    """Of the items of one denoising step, over an iteration."""

    step: int  # 0 is the first, at most noise
    ratio_deviation: float  # mean |ratio - 1|
    clip_fraction: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """One line of `metrics.jsonl`. Everything but `seconds` is the same when a run is repeated on the same CPU."""

    iteration: int
    reward_queries: int  # pictures scored since the start of the run
    reward_mean: float
    reward_se: (
        float | None
    )  # standard error over the pictures of the iteration; None if only one was scored
    unscorable: int
    reward_parts: Mapping[
        str, float | None
    ]  # mean native score of each part of the reward over the scored pictures; None if it gave none
    zero_spread: int  # pictures without advantage because equal rewards gave no spread
    loss: float
    ratio_mean_deviation: (
        float | None
    )  # mean |ratio - 1| over all trained items; None: the method has no ratios
    ratio_first_deviation: float | None  # largest |ratio - 1| before the first update: 0
    clip_fraction: float | None  # share of items whose ratio left 1 ± optim.clip_range
    approx_kl: float | None  # mean of (log ratio)² / 2
    reference_kl: (
        float | None
    )  # mean KL of a denoising step to the reference policy, per latent dimension; None unless optim.kl is set
    by_step: Sequence[StepStats]  # ratio and clip fraction of each denoising step that was trained
    grad_norm: float  # mean over the updates, before clipping
    updates: int
    unscorable_reason: str | None  # of the first picture that is unscorable
    seconds: float  # of this iteration: sampling, scoring and updating
    seconds_sampling: float
    seconds_training: float
    held_out: float | None = (
        None  # mean of `held_out` on its prompts, at a checkpoint; None: not asked for, or nothing could be scored
    )


@dataclass(frozen=True, slots=True)
class Started:
    """The run is set up; `iteration` are done already when it was resumed."""

    iteration: int
    total: int
    summary: str  # the effective batch in words


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at before the first iteration."""

    topic: str  # one word
    text: str
    good: bool = True  # False: the run goes on, but its user should know


@dataclass(frozen=True, slots=True)
class Checked:
    """The check before the first iteration is done."""

    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Progress:
    """Part of an iteration is done; counts are pictures."""

    stage: Literal["checking", "sampling", "training"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class IterationDone:
    """An iteration is finished and its state is on disk."""

    metrics: Metrics
    worst: tuple[str, float]  # prompt and mean reward
    best: tuple[str, float]
    memory: int = 0  # bytes: most that the process held so far, on the GPU if it trains there


@dataclass(frozen=True, slots=True)
class GridSaved:
    """A grid of pictures with fixed prompts and noise was written."""

    path: Path


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint was written; the state of its iteration is not on disk yet."""

    folder: Path


Event = Started | Checked | Progress | IterationDone | GridSaved | Checkpointed
