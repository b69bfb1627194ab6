"""Advantages from rewards: how much better than expected each image is.

| kind | an image is compared with | source |
|---|---|---|
| `per_prompt` | running statistics of its prompt | arXiv 2305.13301, section 5.1; ddpo-pytorch |
| `batch` | all images of the iteration | |
| `group` | those of its prompt in the iteration | GRPO, arXiv 2402.03300, section 4.1.2 |
| `leave_one_out` | the others of its group, without dividing by a spread | RLOO, arXiv 2402.14740 |

`group` divides by a standard deviation: that of the group, that of all rewards of the iteration
(Flow-GRPO, arXiv 2505.05470, `global_std` of its code), or none.

All functions are pure, but for the running statistics that are passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ddpo.trainer.config import AdvantageConfig

__all__ = [
    "PictureWeights",
    "PromptStatistics",
    "SampleWeights",
    "advantages",
    "batch",
    "group",
    "leave_one_out",
    "per_prompt",
]

STD_EPSILON: Final = 1e-6
"""Added to the standard deviation. Source: ddpo-pytorch, stat_tracking.py."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SampleWeights:
    """Weights of an iteration's images: the strength and direction of each one's pull on the model.

    Attributes:
        values: weights `[batch]`; an image of weight 0 is left out of the forward pass.
        scored: `[batch]`, False where the reward was NaN.
        counted: `[batch]`, True for images that count in an update's mean, also with weight 0.
        zero_spread: number of scored images without a weight because all rewards that they are
            compared with are equal.
    """

    values: Floats
    scored: Flags
    counted: Flags
    zero_spread: int


PictureWeights = SampleWeights  # its name in earlier versions


@dataclass(slots=True)
class PromptStatistics:
    """Running statistics: the last `buffer` rewards of each prompt id."""

    buffer: int
    min_count: int
    rewards: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, prompt_id: str, values: Floats) -> None:
        """Appends rewards of one prompt and drops its oldest ones."""
        kept = self.rewards.setdefault(prompt_id, deque(maxlen=self.buffer))
        kept.extend(float(value) for value in values)

    def mean_and_std(self, prompt_id: str, everything: Floats) -> tuple[float, float]:
        """Population mean and standard deviation of the rewards of a prompt.

        Args:
            prompt_id: the prompt.
            everything: rewards of the whole iteration, used while the prompt has fewer than
                `min_count`.
        """
        own = self.rewards[prompt_id]
        values = np.array(own) if len(own) >= self.min_count else everything
        return float(values.mean()), float(values.std())

    def to_state(self) -> dict[str, list[float]]:
        """The buffers as plain lists, for a checkpoint."""
        return {prompt: list(values) for prompt, values in self.rewards.items()}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restores what `to_state` returned."""
        self.rewards = {
            prompt: deque(values, maxlen=self.buffer) for prompt, values in state.items()
        }


def advantages(
    rewards: Floats,
    prompt_ids: Sequence[str],
    statistics: PromptStatistics,
    config: AdvantageConfig,
) -> SampleWeights:
    """Advantages of the kind that the settings name.

    Unscorable images are left out of all statistics and get none. Neither do images that are
    compared with equal rewards only.

    Args:
        rewards: rewards of the iteration, float64 `[batch]`, NaN where unscorable.
        prompt_ids: prompt id of each image, `[batch]`.
        statistics: running statistics of the prompts; `per_prompt` changes them in place.
        config: kind of advantage, and its bound `clip`.
    """
    scored = ~np.isnan(rewards)
    ids = np.array(prompt_ids)
    if config.kind == "batch":
        values = batch(rewards, scored)
    elif config.kind == "group":
        values = group(rewards, ids, scored, config.std)
    elif config.kind == "leave_one_out":
        values = leave_one_out(rewards, ids, scored)
    else:
        values = per_prompt(rewards, ids, scored, statistics)
    flat = np.isnan(values) & scored
    clipped = np.clip(np.nan_to_num(values, nan=0.0), -config.clip, config.clip)
    return SampleWeights(clipped, scored, scored, int(flat.sum()))


def per_prompt(
    rewards: Floats, ids: NDArray[np.str_], scored: Flags, statistics: PromptStatistics
) -> Floats:
    """(r - mean) / (std + 1e-6) with the running statistics of each image's prompt.

    The new rewards enter the statistics first. NaN where there is no spread.
    """
    values = np.full(len(rewards), np.nan)
    for prompt_id in _distinct(ids[scored]):
        chosen = scored & (ids == prompt_id)
        statistics.add(prompt_id, rewards[chosen])
        mean, std = statistics.mean_and_std(prompt_id, rewards[scored])
        values[chosen] = _standard(rewards[chosen], mean, std)
    return values


def batch(rewards: Floats, scored: Flags) -> Floats:
    """(r - mean) / (std + 1e-6) over the iteration; NaN where there is no spread."""
    values = np.full(len(rewards), np.nan)
    if scored.any():
        known = rewards[scored]
        values[scored] = _standard(known, float(known.mean()), float(known.std()))
    return values


def group(
    rewards: Floats,
    ids: NDArray[np.str_],
    scored: Flags,
    std: Literal["group", "iteration", "none"] = "group",
) -> Floats:
    """(r - mean) / (std + 1e-6) with the mean over the images of the same prompt in the iteration.

    NaN where there is no spread in the group, as in a group of one.

    Args:
        rewards: rewards `[batch]`.
        ids: prompt ids `[batch]`.
        scored: flags `[batch]`, False where the reward is NaN.
        std: rewards whose standard deviation divides; "none": no division.
    """
    values = np.full(len(rewards), np.nan)
    overall = float(rewards[scored].std()) if scored.any() else 0.0
    for prompt_id in _distinct(ids[scored]):
        chosen = scored & (ids == prompt_id)
        own = rewards[chosen]
        if std == "group":
            values[chosen] = batch(own, np.ones(len(own), bool))
        elif own.std() > 0:
            divisor = overall + STD_EPSILON if std == "iteration" else 1.0
            values[chosen] = (own - own.mean()) / divisor
    return values


def leave_one_out(rewards: Floats, ids: NDArray[np.str_], scored: Flags) -> Floats:
    """The reward minus the mean of the *others* of the same prompt, on the reward's own scale.

    NaN where there is no spread, as in a group of one.
    """
    values = np.full(len(rewards), np.nan)
    for prompt_id in _distinct(ids[scored]):
        chosen = scored & (ids == prompt_id)
        own = rewards[chosen]
        if len(own) > 1 and own.std() > 0:
            values[chosen] = (own - own.mean()) * len(own) / (len(own) - 1)
    return values


def _standard(rewards: Floats, mean: float, std: float) -> Floats:
    return (rewards - mean) / (std + STD_EPSILON) if std > 0 else np.full(len(rewards), np.nan)


def _distinct(ids: NDArray[np.str_]) -> list[str]:
    return list(dict.fromkeys(ids.tolist()))
