"""The cluster bootstrap: multiplicities of values in each resample, and percentile intervals."""

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
CHUNK: Final = 2_000_000  # resampled values held in memory at a time

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def cluster_weights(
    clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[Floats]:
    """Multiplicities of values when whole clusters are resampled with replacement.

    Args:
        clusters: cluster of each value, `[n]`.
        resamples: number of resamples.
        seed: seed of the resampling.

    Yields:
        Chunks float `[draws, n]`, one row per resample.

    Source: Davison & Hinkley 1997, section 3.8, the variant with all members of a cluster.
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
    """Multiplicities of values when clusters, and then the values of each, are resampled.

    With few values per cluster the result is a little wide, since the spread within a cluster
    counts twice: in the means of the resampled clusters, and in the second stage.

    Args:
        clusters: cluster of each value, `[n]`.
        resamples: number of resamples.
        seed: seed of the resampling.

    Yields:
        Chunks float `[draws, n]`, one row per resample.

    Source: Davison & Hinkley 1997, section 3.8 (hierarchical resampling).
    """
    members = _numbered(clusters)
    n = len(members)
    sizes = np.bincount(members)
    order = np.argsort(members, kind="stable")
    starts = np.cumsum(sizes) - sizes
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
    """The means of `resamples` two-stage bootstrap samples; all columns share the resamples.

    Args:
        values: float `[n, columns]`; NaN is left out of a mean.
        clusters: cluster of each row, `[n]`.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        float `[resamples, columns]`; NaN where a resample holds no value.
    """
    table = np.asarray(values, dtype=np.float64)
    known = (~np.isnan(table)).astype(np.float64)
    filled = np.where(np.isnan(table), 0.0, table)
    means: list[Floats] = []
    for drawn in two_stage_weights(clusters, resamples, seed):
        # The last bits of `@` may depend on the number of threads, and a report must be repeatable.
        sums, counts = (np.einsum("dn,nc->dc", drawn, factor) for factor in (filled, known))
        with np.errstate(invalid="ignore"):
            means.append(sums / counts)
    return np.concatenate(means)


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of resampled values without NaN; NaN if none is left."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)


def mean_interval(values: Floats, clusters: Sequence[Hashable]) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` `[n]`; NaN below two clusters."""
    if len(set(clusters)) < 2:
        return math.nan, math.nan
    means = [(drawn @ values) / drawn.sum(1) for drawn in cluster_weights(clusters)]
    return percentile_interval(np.concatenate(means))


def _numbered(clusters: Sequence[Hashable]) -> Ints:
    """The number of each value's cluster in order of first appearance, int `[n]`."""
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[cluster] for cluster in clusters], dtype=np.int64)
