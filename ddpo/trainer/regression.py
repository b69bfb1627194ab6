"""Rewards to the weights of reward-weighted regression: which pictures the model is fitted to again, and how strongly. Pure.

Source: arXiv 2305.13301, section 4.2 and appendix D.3; Peters and Schaal, "Reinforcement learning by reward-weighted regression" (2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ddpo.trainer.advantages import Flags, Floats, SampleWeights
from ddpo.trainer.config import RegressionConfig

__all__ = ["softmax_weights", "top_weights"]


def softmax_weights(
    rewards: Floats, prompt_ids: Sequence[str], config: RegressionConfig
) -> SampleWeights:
    """w_i = n · exp(β r_i) / Σ_j exp(β r_j) over the n scored pictures of the same prompt: mean 1 in each prompt.

    With `scale = "std"` r is divided by the standard deviation of the prompt's rewards first, so that β has no unit.

    Args:
        rewards: float64 `[batch]`, NaN where unscorable.
        prompt_ids: `[batch]`.
        config: β and the scale.
    """
    scored = ~np.isnan(rewards)
    values, flat = np.zeros(len(rewards)), 0
    for chosen in _groups(scored, prompt_ids):
        own = rewards[chosen]
        spread = float(own.std())
        flat += len(own) if spread == 0 else 0
        score = (
            config.beta
            * (own - own.max())
            / (spread if config.scale == "std" and spread > 0 else 1.0)
        )
        weights = np.exp(score)
        values[chosen] = weights / weights.mean()
    return SampleWeights(values, scored, scored, flat)


def top_weights(
    rewards: Floats, prompt_ids: Sequence[str], config: RegressionConfig
) -> SampleWeights:
    """1 for the pictures at or above the (1 - `keep`) quantile of their prompt's rewards, 0 for the others, which do not count.

    A prompt whose rewards are all equal keeps none: there is nothing to prefer.

    Args:
        rewards: float64 `[batch]`, NaN where unscorable.
        prompt_ids: `[batch]`.
        config: the share that is kept.
    """
    scored = ~np.isnan(rewards)
    values, flat = np.zeros(len(rewards)), 0
    for chosen in _groups(scored, prompt_ids):
        own = rewards[chosen]
        if own.min() == own.max():
            flat += len(own)
        else:
            values[chosen] = own >= np.quantile(own, 1 - config.keep)
    return SampleWeights(values, scored, values > 0, flat)


def _groups(scored: Flags, prompt_ids: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    ids = np.array(prompt_ids)
    for prompt_id in dict.fromkeys(ids[scored].tolist()):
        yield scored & (ids == prompt_id)
