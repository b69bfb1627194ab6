"""The cluster bootstrap: how often each value counts in each resample, and the percentile interval of what was computed from them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "cluster_weights",
    "mean_interval",
    "percentile_interval",
    "two_stage_means",
    "two_stage_weights",
]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000  # Efron & Tibshirani 1993: at least 1000 for percentile intervals
CHUNK: Final = 2_000_000  # bootstrap draws held in memory at a time

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def cluster_weights(
    clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[Floats]:
    """Whole clusters drawn with replacement, as many as there are: chunks float `[draws, n]` of how often each value was drawn.

    Source: Davison & Hinkley 1997, section 3.8, the variant that keeps all members of a drawn cluster.
    """
    members = _numbered(clusters)
    count = int(members.max(initial=-1)) + 1
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // max(1, len(members)))
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        counts = random.multinomial(count, np.full(count, 1 / count), size=draws)
        yield counts[:, members].astype(np.float64)


def two_stage_weights(
    clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[Floats]:
    """Clusters drawn with replacement and, in each drawn one, its values again: chunks float `[draws, n]` of how often each was drawn.

    Source: Davison & Hinkley 1997, section 3.8 (hierarchical resampling). With few values per cluster it is a little wide, because the
    spread within a cluster counts twice: once in the drawn clusters' means, once in the second drawing.
    """
    members = _numbered(clusters)
    n = len(members)
    sizes = np.bincount(members)
    order, starts = np.argsort(members, kind="stable"), np.cumsum(sizes) - sizes
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // max(1, len(sizes) * int(sizes.max(initial=1))))
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        drawn = random.integers(len(sizes), size=(draws, len(sizes)))
        size = sizes[drawn][..., None]
        offsets = (random.random((draws, len(sizes), int(sizes.max()))) * size).astype(np.int64)
        columns = (
            order[np.minimum(starts[drawn][..., None] + offsets, n - 1)]
            + n * np.arange(draws)[:, None, None]
        )
        taken = columns[np.arange(offsets.shape[2]) < size]
        yield np.bincount(taken, minlength=draws * n).reshape(draws, n).astype(np.float64)


def two_stage_means(
    values: ArrayLike, clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """Means of `resamples` two-stage bootstrap samples; all columns share the draws, so what they have in common stays in common.

    Args:
        values: float `[n, columns]`; NaN is left out of a mean.
        clusters: the cluster of each row, `[n]`.
        resamples: number of draws.
        seed: of the resampling.

    Returns:
        float `[resamples, columns]`; NaN where a resample holds no value.
    """
    table = np.asarray(values, dtype=np.float64)
    known = (~np.isnan(table)).astype(np.float64)
    filled = np.where(np.isnan(table), 0.0, table)
    means: list[Floats] = []
    for drawn in two_stage_weights(clusters, resamples, seed):
        # Not `@`: the last bits of a matrix product may depend on the number of threads, and a rerun has to give the same report.
        sums, counts = (np.einsum("dn,nc->dc", drawn, factor) for factor in (filled, known))
        with np.errstate(invalid="ignore"):
            means.append(sums / counts)
    return np.concatenate(means)


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
    return percentile_interval(
        np.concatenate([(drawn @ values) / drawn.sum(1) for drawn in cluster_weights(clusters)])
    )


def _numbered(clusters: Sequence[Hashable]) -> Ints:
    """The clusters' numbers in order of first appearance, int `[n]`."""
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[cluster] for cluster in clusters], dtype=np.int64)
