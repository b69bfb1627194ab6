"""Rewards to advantages: per-prompt running statistics, as in arXiv 2305.13301 (section 5.1) and ddpo-pytorch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Advantages", "PromptStatistics", "per_prompt_advantages"]

STD_EPSILON = 1e-6
"""Added to the standard deviation. Source: ddpo-pytorch, stat_tracking.py."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Advantages:
    """One advantage per picture; 0 where it was unscorable or its statistics have no spread."""

    values: Floats  # [batch], clipped
    scored: NDArray[np.bool_]  # [batch], False where the reward was NaN
    zero_spread: int  # scored pictures whose mean and standard deviation came from equal rewards


@dataclass(slots=True)
class PromptStatistics:
    """The last `buffer` rewards of each prompt id."""

    buffer: int
    min_count: int
    rewards: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, prompt_id: str, values: Floats) -> None:
        """Appends rewards of one prompt, oldest dropped."""
        self.rewards.setdefault(prompt_id, deque(maxlen=self.buffer)).extend(float(v) for v in values)

    def mean_and_std(self, prompt_id: str, batch: Floats) -> tuple[float, float]:
        """Population mean and standard deviation of the prompt's buffer, or of the whole batch while it is short of `min_count`."""
        own = self.rewards[prompt_id]
        values = np.array(own) if len(own) >= self.min_count else batch
        return float(values.mean()), float(values.std())

    def to_state(self) -> dict[str, list[float]]:
        """The buffers as plain lists, for a checkpoint."""
        return {prompt: list(values) for prompt, values in self.rewards.items()}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Puts back what `to_state` gave."""
        self.rewards = {prompt: deque(values, maxlen=self.buffer) for prompt, values in state.items()}


def per_prompt_advantages(rewards: Floats, prompt_ids: Sequence[str], statistics: PromptStatistics, clip: float) -> Advantages:
    """A = clamp((r - mean) / (std + 1e-6), ±clip) with the statistics of each picture's prompt.

    New rewards enter the statistics first. NaN rewards are left out of all statistics and get advantage 0.

    Args:
        rewards: float64 `[batch]`, NaN where unscorable.
        prompt_ids: `[batch]`.
        statistics: running per-prompt statistics; changed in place.
        clip: bound of the advantage, in standard deviations.
    """
    scored = ~np.isnan(rewards)
    ids = np.array(prompt_ids)
    values = np.zeros(len(rewards))
    batch = rewards[scored]
    zero_spread = 0
    for prompt_id in dict.fromkeys(ids[scored].tolist()):
        chosen = scored & (ids == prompt_id)
        statistics.add(prompt_id, rewards[chosen])
        mean, std = statistics.mean_and_std(prompt_id, batch)
        if std == 0:
            zero_spread += int(chosen.sum())
            continue
        values[chosen] = np.clip((rewards[chosen] - mean) / (std + STD_EPSILON), -clip, clip)
    return Advantages(values, scored, zero_spread)
