"""Do two rewards rank pictures alike? Rank correlations with intervals, and the pictures on which they differ most."""

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
"""Images (or prompts, where they are the clusters) below which an interval is called rough: a bootstrap of so few is too narrow."""
MATRIX_LIMIT: Final = 500  # images up to which all resamples of Kendall's tau in one matrix product beat one sort each

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correlation:
    """A rank correlation and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two rewards rank the images that both could score."""

    spearman: Correlation
    kendall: Correlation  # tau-b
    n: int
    excluded: int  # images that either reward could not score
    clusters: int  # what was resampled: prompts, or the images themselves
    note: str  # what a reader has to know before using the figures; "" if nothing


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One image as two rewards see it, among the images that both could score."""

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
    """Spearman's rho and Kendall's tau-b with percentile intervals of a bootstrap over clusters. Ties get mid-ranks.

    Args:
        a: scores of one reward, float `[images]`; NaN marks what could not be scored.
        b: scores of the other, `[images]`.
        clusters: what is drawn together, such as the prompt of each image, `[images]`; None: each image for itself.
        resamples: number of bootstrap draws.
        seed: of the resampling.

    Raises:
        ConfigError: the lengths differ.

    Source: Kendall 1945 (tau-b); Efron & Tibshirani 1993, section 13.3 (percentile interval).
    """
    kept, x, y = _both(a, b)
    labels: list[Hashable] = (
        list(range(len(kept))) if clusters is None else [clusters[index] for index in kept]
    )
    excluded = len(np.asarray(a)) - len(kept)
    distinct = len(set(labels))
    if len(kept) < 3:
        unknown = Correlation(math.nan, math.nan, math.nan)
        return Agreement(
            unknown,
            unknown,
            len(kept),
            excluded,
            distinct,
            "fewer than 3 images that both could score",
        )
    whole = np.ones((1, len(x)))
    values = _spearman(x, y, whole)[0], _kendall(x, y, whole)[0]
    draws: tuple[list[Floats], list[Floats]] = ([], [])
    for weights in cluster_weights(labels, resamples, seed) if distinct > 1 else ():
        draws[0].append(_spearman(x, y, weights))
        draws[1].append(_kendall(x, y, weights))
    rho, tau = (
        Correlation(
            float(value),
            *(percentile_interval(np.concatenate(drawn)) if drawn else (math.nan, math.nan)),
        )
        for value, drawn in zip(values, draws, strict=True)
    )
    return Agreement(
        rho,
        tau,
        len(kept),
        excluded,
        distinct,
        _note(values[0], distinct, "images" if clusters is None else "prompts"),
    )


def _note(rho: float, distinct: int, kind: str) -> str:
    if math.isnan(rho):
        return "a reward gives all images the same score"
    if distinct < 2:
        return f"one of the {kind} only: no interval"
    return (
        f"fewer than {FEW} {kind}: the intervals are rough, and too narrow as a rule"
        if distinct < FEW
        else ""
    )


def percentiles(scores: ArrayLike) -> Floats:
    """(mid-rank - ½) / n of each score `[n]`: 0 … 1, the share of images below it with half of its ties."""
    ranks = mid_ranks(scores)
    return (ranks - 0.5) / max(1, len(ranks))


def mid_ranks(scores: ArrayLike) -> Floats:
    """Ranks 1 … n from the lowest score `[n]`; equal scores share the mean of their ranks."""
    return np.asarray(stats.rankdata(np.asarray(scores, dtype=np.float64)), dtype=np.float64)


def disagreements(a: ArrayLike, b: ArrayLike, count: int) -> list[Disagreement]:
    """The `count` images whose percentiles differ most between two rewards, the largest difference first; equal differences by index.

    Images that both rewards put in the same place are left out.

    Raises:
        ConfigError: the lengths differ.
    """
    kept, x, y = _both(a, b)
    below, n = (percentiles(x), percentiles(y)), len(kept)
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
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ConfigError(f"{first.shape} scores were compared with {second.shape} scores")
    kept = np.flatnonzero(~np.isnan(first) & ~np.isnan(second))
    return kept, first[kept], second[kept]


def _spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation of the mid-ranks in each resample; `weights` `[draws, n]` tell how often each value counts."""
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
    """Kendall's tau-b in each resample: Σ sign(x_i - x_j) sign(y_i - y_j) / √(Σ sign²(x_i - x_j) Σ sign²(y_i - y_j))."""
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
