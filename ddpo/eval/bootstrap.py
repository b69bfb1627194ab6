"""The cluster bootstrap: how often each value counts in each resample, and the percentile interval of what was computed from them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ddpo.eval.stats import CHUNK, CONFIDENCE, RESAMPLES

__all__ = ["cluster_weights", "mean_interval", "percentile_interval"]

Floats = NDArray[np.float64]


def cluster_weights(clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """Whole clusters drawn with replacement, as many as there are: chunks float `[draws, n]` of how often each value was drawn.

    Source: Davison & Hinkley 1997, section 3.8, the variant that keeps all members of a drawn cluster.
    """
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    members = np.array([numbers[cluster] for cluster in clusters], dtype=np.int64)
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // max(1, len(members)))
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        counts = random.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=draws)
        yield counts[:, members].astype(np.float64)


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile; resamples without a value (NaN) are left out, NaN if none has one."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)


def mean_interval(values: Floats, clusters: Sequence[Hashable]) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` `[n]`; NaN below two clusters."""
    if len(set(clusters)) < 2:
        return math.nan, math.nan
    return percentile_interval(np.concatenate([(drawn @ values) / drawn.sum(1) for drawn in cluster_weights(clusters)]))
