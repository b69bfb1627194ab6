"""Win rates: of tuned over base images by a score, and shares of people's choices by prompt."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ddpo.errors import ConfigError
from ddpo.stats.bootstrap import CONFIDENCE
from ddpo.stats.estimate import Estimate

__all__ = ["WinRate", "clustered_share", "win_rate"]


@dataclass(frozen=True, slots=True)
class WinRate:
    """The share of pairs with a higher tuned score, ties counted half; Wilson's 95 % interval."""

    rate: float
    low: float
    high: float
    n: int
    ties: int


def win_rate(differences: ArrayLike) -> WinRate:
    """P(difference > 0) + ½ P(difference = 0) with Wilson's score interval.

    NaN differences are left out. The interval takes pairs as independent, so it is a little narrow
    where prompts differ.

    Source: Wilson 1927.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[~np.isnan(d)]
    n = len(d)
    if n == 0:
        return WinRate(math.nan, math.nan, math.nan, 0, 0)
    ties = int((d == 0).sum())
    rate = (float((d > 0).sum()) + ties / 2) / n
    z = float(special.ndtri(0.5 + CONFIDENCE / 2))
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return WinRate(rate, max(0.0, center - half), min(1.0, center + half), n, ties)


def clustered_share(values: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """The mean of values from 0 to 1, with an interval that allows for dependence inside a cluster.

    The interval is that of `clustered_mean` after two clusters of average size were added, one of
    all ones and one of all zeros. So it has a width where all values are equal, and it stays within
    0 and 1. If all C clusters hold only ones, its lower end is (C + 1 - t_{C+1, 0.975}) / (C + 2).

    Args:
        values: float `[n]`, each from 0 to 1; NaN is left out and counted.
        clusters: cluster of each value, here its prompt, `[n]`.

    Returns:
        The mean of the values alone; `se`, `low` and `high` are NaN below two clusters.

    Raises:
        ConfigError: the lengths differ.

    Source: the added success and failure are those of Agresti & Caffo 2000, with clusters as the
    unit; the standard error is that of `clustered_mean`.
    """
    everything = np.asarray(values, dtype=np.float64)
    if len(everything) != len(clusters):
        raise ConfigError(f"{len(everything)} values came with {len(clusters)} clusters")
    sums: dict[Hashable, float] = {}
    sizes: dict[Hashable, int] = {}
    for value, cluster in zip(everything.tolist(), clusters, strict=True):
        if not math.isnan(value):
            sums[cluster] = sums.get(cluster, 0.0) + value
            sizes[cluster] = sizes.get(cluster, 0) + 1
    n = sum(sizes.values())
    excluded = len(everything) - n
    if not n:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, excluded)
    mean = sum(sums.values()) / n
    if len(sums) < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, n, len(sums), excluded)
    size = n / len(sums)
    totals = np.array([*sums.values(), size, 0.0])
    weights = np.array([*sizes.values(), size, size])
    centre = totals.sum() / weights.sum()
    count = len(totals)
    squares = float(((totals - weights * centre) ** 2).sum())
    se = math.sqrt(count / (count - 1) * squares) / float(weights.sum())
    half = float(special.stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * se
    low = max(0.0, float(centre) - half)
    high = min(1.0, float(centre) + half)
    return Estimate(mean, se, low, high, n, len(sums), excluded)
