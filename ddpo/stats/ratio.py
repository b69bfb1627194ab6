"""Ratios of sums over the same prompts, with bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ddpo.stats.bootstrap import cluster_weights, percentile_interval

__all__ = ["divided", "ratio_interval"]

Floats = NDArray[np.float64]


def divided(top: Floats, bottom: Floats) -> Floats:
    """Elementwise top / bottom, `[n]`; NaN where the bottom is not above 0."""
    shares: Floats = np.divide(top, bottom, out=np.full(len(top), math.nan), where=bottom > 0)
    return shares


def ratio_interval(base: Floats, tuned: Floats) -> tuple[float, float, float]:
    """Σ tuned / Σ base with its 95 % percentile interval; NaN without a base.

    Each bootstrap resample takes the same prompts of both.

    Args:
        base: one value per prompt, `[prompts]`.
        tuned: values of the same prompts, `[prompts]`.

    Source: Davison & Hinkley 1997, section 2.4 (the ratio of means of pairs).
    """
    if not len(base) or not base.sum() > 0:
        return math.nan, math.nan, math.nan
    ratio = float(tuned.sum() / base.sum())
    if len(base) < 2:
        return ratio, math.nan, math.nan
    resampled = [
        divided(drawn @ tuned, drawn @ base) for drawn in cluster_weights(range(len(base)))
    ]
    return ratio, *percentile_interval(np.concatenate(resampled))
