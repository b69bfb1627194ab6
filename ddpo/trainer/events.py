"""The records that a training run yields, for whoever draws, logs or stops it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Checkpointed", "Event", "GridSaved", "IterationDone", "Metrics", "Progress", "Started"]


@dataclass(frozen=True, slots=True)
class Metrics:
    """One line of `metrics.jsonl`. Everything but `seconds` is the same when a run is repeated on the same CPU."""

    iteration: int
    reward_queries: int  # pictures scored since the start of the run
    reward_mean: float
    reward_se: float | None  # standard error over the pictures of the iteration; None if only one was scored
    unscorable: int
    reward_parts: Mapping[str, float | None]  # mean native score of each part of the reward over the scored pictures; None if it gave none
    zero_spread: int  # pictures without advantage because equal rewards gave no spread
    loss: float
    ratio_mean_deviation: float  # mean |ratio - 1| over all trained items
    ratio_first_deviation: float  # largest |ratio - 1| before the first update: 0
    clip_fraction: float  # share of items whose ratio left 1 ± optim.clip_range
    approx_kl: float  # mean of (log ratio)² / 2
    grad_norm: float  # mean over the updates, before clipping
    updates: int
    unscorable_reason: str | None  # of the first picture that is unscorable
    seconds: float  # of this iteration: sampling, scoring and updating
    seconds_sampling: float
    seconds_training: float


@dataclass(frozen=True, slots=True)
class Started:
    """The run is set up; `iteration` are done already when it was resumed."""

    iteration: int
    total: int
    summary: str  # the effective batch in words


@dataclass(frozen=True, slots=True)
class Progress:
    """Part of an iteration is done; counts are pictures."""

    stage: Literal["sampling", "training"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class IterationDone:
    """An iteration is finished and its state is on disk."""

    metrics: Metrics
    worst: tuple[str, float]  # prompt and mean reward
    best: tuple[str, float]


@dataclass(frozen=True, slots=True)
class GridSaved:
    """A grid of pictures with fixed prompts and noise was written."""

    path: Path


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint was written."""

    folder: Path


Event = Started | Progress | IterationDone | GridSaved | Checkpointed
