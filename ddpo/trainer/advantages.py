"""Rewards to advantages: how much better than expected each picture is. Pure, but for the running statistics that are handed in.

`per_prompt` keeps running statistics of each prompt, as in arXiv 2305.13301 (section 5.1) and ddpo-pytorch; `batch` compares with all
pictures of the iteration; `group` with those of the same prompt in the iteration, as in GRPO (arXiv 2402.03300, section 4.1.2);
`leave_one_out` with the others of the group, without dividing by a spread (RLOO, arXiv 2402.14740).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

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
    """How strongly, and in which direction, each picture of an iteration is to change the model; 0: it is left out of the forward pass."""

    values: Floats  # [batch]
    scored: Flags  # [batch], False where the reward was NaN
    counted: Flags  # [batch], whether a picture counts in the mean that an update takes, also with weight 0
    zero_spread: int  # scored pictures that got no weight because the rewards that they are compared with are equal


PictureWeights = SampleWeights  # its name in earlier versions


@dataclass(slots=True)
class PromptStatistics:
    """The last `buffer` rewards of each prompt id."""

    buffer: int
    min_count: int
    rewards: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, prompt_id: str, values: Floats) -> None:
        """Appends rewards of one prompt, oldest dropped."""
        self.rewards.setdefault(prompt_id, deque(maxlen=self.buffer)).extend(
            float(v) for v in values
        )

    def mean_and_std(self, prompt_id: str, everything: Floats) -> tuple[float, float]:
        """Population mean and standard deviation of the prompt's buffer, or of all of the iteration while it is short of `min_count`."""
        own = self.rewards[prompt_id]
        values = np.array(own) if len(own) >= self.min_count else everything
        return float(values.mean()), float(values.std())

    def to_state(self) -> dict[str, list[float]]:
        """The buffers as plain lists, for a checkpoint."""
        return {prompt: list(values) for prompt, values in self.rewards.items()}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Puts back what `to_state` gave."""
        self.rewards = {
            prompt: deque(values, maxlen=self.buffer) for prompt, values in state.items()
        }


def advantages(
    rewards: Floats,
    prompt_ids: Sequence[str],
    statistics: PromptStatistics,
    config: AdvantageConfig,
) -> SampleWeights:
    """The advantages of the kind that the settings name.

    Unscorable pictures are left out of all statistics and get none; so do those whose comparison has no spread.

    Args:
        rewards: float64 `[batch]`, NaN where unscorable.
        prompt_ids: `[batch]`.
        statistics: running per-prompt statistics; `per_prompt` changes them in place.
        config: kind, and the bound `clip` of an advantage.
    """
    scored = ~np.isnan(rewards)
    ids = np.array(prompt_ids)
    if config.kind == "batch":
        values = batch(rewards, scored)
    elif config.kind == "group":
        values = group(rewards, ids, scored)
    elif config.kind == "leave_one_out":
        values = leave_one_out(rewards, ids, scored)
    else:
        values = per_prompt(rewards, ids, scored, statistics)
    flat = np.isnan(values) & scored
    return SampleWeights(
        np.clip(np.nan_to_num(values, nan=0.0), -config.clip, config.clip),
        scored,
        scored,
        int(flat.sum()),
    )


def per_prompt(
    rewards: Floats, ids: NDArray[np.str_], scored: Flags, statistics: PromptStatistics
) -> Floats:
    """(r - mean) / (std + 1e-6) with the running statistics of each picture's prompt, which its new rewards enter first; NaN: no spread."""
    values = np.full(len(rewards), np.nan)
    for prompt_id in _distinct(ids[scored]):
        chosen = scored & (ids == prompt_id)
        statistics.add(prompt_id, rewards[chosen])
        values[chosen] = _standard(
            rewards[chosen], *statistics.mean_and_std(prompt_id, rewards[scored])
        )
    return values


def batch(rewards: Floats, scored: Flags) -> Floats:
    """(r - mean) / (std + 1e-6) over the iteration; NaN: no spread."""
    values = np.full(len(rewards), np.nan)
    if scored.any():
        values[scored] = _standard(
            rewards[scored], float(rewards[scored].mean()), float(rewards[scored].std())
        )
    return values


def group(rewards: Floats, ids: NDArray[np.str_], scored: Flags) -> Floats:
    """(r - mean) / (std + 1e-6) over the pictures of the same prompt in the iteration; NaN: no spread, or a group of one."""
    values = np.full(len(rewards), np.nan)
    for prompt_id in _distinct(ids[scored]):
        chosen = scored & (ids == prompt_id)
        values[chosen] = batch(rewards[chosen], np.ones(int(chosen.sum()), bool))
    return values


def leave_one_out(rewards: Floats, ids: NDArray[np.str_], scored: Flags) -> Floats:
    """The reward minus the mean of the *others* of the same prompt, on the reward's own scale; NaN: no spread, or a group of one."""
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
