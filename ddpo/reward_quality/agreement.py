"""Agreement of two rewards: rank correlations with intervals, and the largest disagreements."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ddpo.errors import ConfigError
from ddpo.stats.bootstrap import cluster_weights, percentile_interval
from ddpo.stats.paired import RESAMPLES

__all__ = [
    "Agreement",
    "Correlation",
    "Disagreement",
    "agreement",
    "disagreements",
    "mid_ranks",
    "percentiles",
]

FEW: Final = 10
"""Images, or prompts as clusters, below which a bootstrap interval is rough and too narrow."""
MATRIX_LIMIT: Final = 500  # images up to which one matrix product beats a sort per resample

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correlation:
    """A rank correlation and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of two rewards on the images that both could score."""

    spearman: Correlation
    kendall: Correlation  # tau-b
    n: int
    excluded: int  # images that either reward could not score
    clusters: int  # number of resampled prompts, or of images
    note: str  # warning for the reader; "" without one


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The ranks of one image by two rewards, among the images that both could score."""

    index: int
    percentile_a: float  # 0 … 1, mid-ranks
    percentile_b: float
    rank_a: float  # 1 is the highest score; ties share their mean rank
    rank_b: float

    @property
    def difference(self) -> float:
        """Percentile of the first reward minus that of the second."""
        return self.percentile_a - self.percentile_b


def agreement(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Spearman's rho and Kendall's tau-b with percentile intervals of a bootstrap over clusters.

    Ties get mid-ranks.

    Args:
        a: scores of one reward, float `[images]`; NaN where there is no score.
        b: scores of the other reward, `[images]`.
        clusters: cluster of each image, such as its prompt, `[images]`; None: each image alone.
        resamples: number of resamples.
        seed: seed of the resampling.

    Raises:
        ConfigError: the lengths differ.

    Source: Kendall 1945 (tau-b); Efron & Tibshirani 1993, section 13.3 (percentile interval).
    """
    kept, x, y = _both(a, b)
    labels: list[Hashable] = list(range(len(kept)))
    if clusters is not None:
        labels = [clusters[index] for index in kept]
    n = len(kept)
    excluded = len(np.asarray(a)) - n
    distinct = len(set(labels))
    if n < 3:
        unknown = Correlation(math.nan, math.nan, math.nan)
        note = "fewer than 3 images that both could score"
        return Agreement(unknown, unknown, n, excluded, distinct, note)
    resampled = [
        (_spearman(x, y, weights), _kendall(x, y, weights))
        for weights in (cluster_weights(labels, resamples, seed) if distinct > 1 else ())
    ]
    whole = np.ones((1, n))
    rho = _correlation(_spearman(x, y, whole), [of_rho for of_rho, _ in resampled])
    tau = _correlation(_kendall(x, y, whole), [of_tau for _, of_tau in resampled])
    note = _note(rho.value, distinct, "images" if clusters is None else "prompts")
    return Agreement(rho, tau, n, excluded, distinct, note)


def _correlation(value: Floats, resampled: Sequence[Floats]) -> Correlation:
    """A correlation `[1]` with the interval of its resamples, in chunks `[draws]`."""
    if not resampled:
        return Correlation(float(value[0]), math.nan, math.nan)
    return Correlation(float(value[0]), *percentile_interval(np.concatenate(resampled)))


def _note(rho: float, distinct: int, kind: str) -> str:
    if math.isnan(rho):
        return "a reward gives all images the same score"
    if distinct < 2:
        return f"one of the {kind} only: no interval"
    if distinct < FEW:
        return f"fewer than {FEW} {kind}: the intervals are rough, and too narrow as a rule"
    return ""


def percentiles(scores: ArrayLike) -> Floats:
    """The share of images below each score `[n]`, with half of its ties: (mid-rank - ½) / n."""
    ranks = mid_ranks(scores)
    return (ranks - 0.5) / max(1, len(ranks))


def mid_ranks(scores: ArrayLike) -> Floats:
    """Ranks 1 … n from the lowest score `[n]`; equal scores share the mean of their ranks."""
    return np.asarray(stats.rankdata(np.asarray(scores, dtype=np.float64)), dtype=np.float64)


def disagreements(a: ArrayLike, b: ArrayLike, count: int) -> list[Disagreement]:
    """The `count` images whose percentiles differ most between two rewards, in falling order.

    Equal differences are ordered by index. Images of the same rank by both rewards are left out.

    Raises:
        ConfigError: the lengths differ.
    """
    kept, x, y = _both(a, b)
    n = len(kept)
    below = (percentiles(x), percentiles(y))
    ranks = (n + 1 - mid_ranks(x), n + 1 - mid_ranks(y))
    apart = np.abs(ranks[0] - ranks[1])
    order = [i for i in np.argsort(-apart, kind="stable")[:count] if apart[i] > 0]
    return [
        Disagreement(
            int(kept[i]),
            float(below[0][i]),
            float(below[1][i]),
            float(ranks[0][i]),
            float(ranks[1][i]),
        )
        for i in order
    ]


def _both(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.int64], Floats, Floats]:
    """The indices of the images that both rewards scored, and the two scores of each."""
    first = np.asarray(a, dtype=np.float64)
    second = np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ConfigError(f"{first.shape} scores were compared with {second.shape} scores")
    kept = np.flatnonzero(~np.isnan(first) & ~np.isnan(second))
    return kept, first[kept], second[kept]


def _spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation of the mid-ranks in each resample of multiplicities `[draws, n]`."""
    total = weights.sum(1, keepdims=True)
    first, second = (_drawn_ranks(values, weights) - (total + 1) / 2 for values in (x, y))
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = (weights * first * second).sum(1) / np.sqrt(
            (weights * first**2).sum(1) * (weights * second**2).sum(1)
        )
    return np.asarray(rho, dtype=np.float64)


def _drawn_ranks(values: Floats, weights: Floats) -> Floats:
    """The mid-rank `[draws, n]` of each value in each resample."""
    group = np.unique(values, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    return np.asarray((counts.cumsum(1) - (counts - 1) / 2)[:, group], dtype=np.float64)


def _kendall(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Kendall's tau-b in each resample of multiplicities `[draws, n]`.

    Σ sign(x_i - x_j) sign(y_i - y_j) / √(Σ sign²(x_i - x_j) Σ sign²(y_i - y_j)).
    """
    if len(x) > MATRIX_LIMIT:
        drawn = [np.repeat(np.arange(len(x)), row.astype(np.int64)) for row in weights]
        return np.array(
            [stats.kendalltau(x[rows], y[rows], method="asymptotic").statistic for rows in drawn],
            dtype=np.float64,
        )
    first, second = (np.sign(values[:, None] - values) for values in (x, y))
    products = (first * second, first * first, second * second)
    concordance, pairs_x, pairs_y = ((weights @ product * weights).sum(1) for product in products)
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = concordance / np.sqrt(pairs_x * pairs_y)
    return np.asarray(tau, dtype=np.float64)
