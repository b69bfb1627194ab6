"""Weights of reward-weighted regression: how strongly the model is fitted to each image again.

All functions are pure. Source: arXiv 2305.13301, section 4.2 and appendix D.3; Peters and Schaal,
"Reinforcement learning by reward-weighted regression" (2007).
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
    """w_i = n · exp(β r_i) / Σ_j exp(β r_j) over the n scored images of a prompt, with mean 1.

    With `scale = "std"` r is first divided by the standard deviation of the prompt's rewards, so
    that β has no unit.

    Args:
        rewards: rewards of the iteration, float64 `[batch]`, NaN where unscorable.
        prompt_ids: prompt id of each image, `[batch]`.
        config: β and the scale.
    """
    scored = ~np.isnan(rewards)
    values = np.zeros(len(rewards))
    flat = 0
    for chosen in _groups(scored, prompt_ids):
        own = rewards[chosen]
        spread = float(own.std())
        flat += len(own) if spread == 0 else 0
        unit = spread if config.scale == "std" and spread > 0 else 1.0
        weights = np.exp(config.beta * (own - own.max()) / unit)
        values[chosen] = weights / weights.mean()
    return SampleWeights(values, scored, scored, flat)


def top_weights(
    rewards: Floats, prompt_ids: Sequence[str], config: RegressionConfig
) -> SampleWeights:
    """1 for images at or above the (1 - `keep`) quantile of their prompt's rewards, else 0.

    Images of weight 0 do not count. A prompt whose rewards are all equal keeps none, since none is
    better than another.

    Args:
        rewards: rewards of the iteration, float64 `[batch]`, NaN where unscorable.
        prompt_ids: prompt id of each image, `[batch]`.
        config: share of the images that is kept.
    """
    scored = ~np.isnan(rewards)
    values = np.zeros(len(rewards))
    flat = 0
    for chosen in _groups(scored, prompt_ids):
        own = rewards[chosen]
        if own.min() == own.max():
            flat += len(own)
        else:
            values[chosen] = own >= np.quantile(own, 1 - config.keep)
    return SampleWeights(values, scored, values > 0, flat)


def _groups(scored: Flags, prompt_ids: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    """Flags `[batch]` of the scored images of each prompt, prompt by prompt."""
    ids = np.array(prompt_ids)
    for prompt_id in dict.fromkeys(ids[scored].tolist()):
        yield scored & (ids == prompt_id)
