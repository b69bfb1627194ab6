"""Does a picture still depend on its prompt? The swap test, and the share of the pictures' variance that the prompts explain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddpo.eval.analysis.diversity import Groups, ratio_interval
from ddpo.stats.bootstrap import cluster_weights, percentile_interval

__all__ = [
    "Dependence",
    "SwapPairs",
    "explained_change",
    "omega_squared",
    "swap_change",
    "swap_partners",
]

Floats = NDArray[np.float64]
SwapPairs = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
"""Prompt id → rows `[n, width]` of its own pictures, and rows `[n, width]` of the same noise asked for another prompt."""


@dataclass(frozen=True, slots=True)
class Dependence:
    """How much the prompt decides, for one model on one split, beside the base model. NaN where it could not be measured.

    "swap": mean distance of two pictures of the same noise and different prompts. "explained": ω², the share of variance between prompts.
    """

    model: str
    split: str
    test: Literal["swap", "explained"]
    base: float
    tuned: float
    ratio: float  # tuned / base
    low: float  # 95 % interval of the ratio, bootstrap over prompts
    high: float
    prompts: int


def swap_partners(ids: Sequence[str]) -> dict[str, str]:
    """Prompt id → whose text is asked for on its noise: half the list further on, since neighbours are often alike; {} below two."""
    return (
        {id: ids[(place + len(ids) // 2) % len(ids)] for place, id in enumerate(ids)}
        if len(ids) > 1
        else {}
    )


def swap_change(model: str, split: str, base: SwapPairs, tuned: SwapPairs) -> Dependence:
    """The swap test: how far a picture moves when its noise stays and its prompt changes; 0 for a model that ignores prompts.

    The distance is √ of the mean squared difference, of features or of pixels, in their own units; unlike a cosine, it stays when training
    moves all pictures the same way.

    Args:
        model: Name of the tuned model.
        split: Name of the split.
        base: The base model's pictures.
        tuned: The tuned model's, with the same noise and the same other prompts.
    """
    shared = [id for id in base if id in tuned and len(base[id][0]) and len(tuned[id][0])]
    values = (
        np.array(
            [[_mean_distance(*of[id]) for of in (base, tuned)] for id in shared], dtype=np.float64
        )
        .reshape(-1, 2)
        .T
    )
    means = [float(row.mean()) if shared else math.nan for row in values]
    return Dependence(
        model, split, "swap", means[0], means[1], *ratio_interval(values[0], values[1]), len(shared)
    )


def explained_change(model: str, split: str, base: Groups, tuned: Groups) -> Dependence:
    """ω² of the pictures' features by prompt, before and after, with a bootstrap over prompts of the ratio (NaN where the base has none).

    Args:
        model: Name of the tuned model.
        split: Name of the split.
        base: Features (or pixels) of the base model's pictures; prompts with fewer than two pictures are left out.
        tuned: The tuned model's.
    """
    shared = [id for id in base if id in tuned and min(len(base[id]), len(tuned[id])) > 1]
    if len(shared) < 2:
        return Dependence(
            model, split, "explained", math.nan, math.nan, math.nan, math.nan, math.nan, len(shared)
        )
    sides = [_sums([groups[id].astype(np.float64) for id in shared]) for groups in (base, tuned)]
    before, after = (float(_omega(side, np.ones((1, len(shared))))[0]) for side in sides)
    draws = []
    for weights in cluster_weights(range(len(shared))):
        below, above = (_omega(side, weights) for side in sides)
        draws.append(np.divide(above, below, out=np.full(len(above), math.nan), where=below > 0))
    ratio, (low, high) = (
        (after / before, percentile_interval(np.concatenate(draws)))
        if before > 0
        else (math.nan, (math.nan, math.nan))
    )
    return Dependence(model, split, "explained", before, after, ratio, low, high, len(shared))


def omega_squared(groups: Sequence[Floats]) -> float:
    """ω² = (SS_between - (k - 1) MS_within) / (SS_total + MS_within): the share of variance that k groups explain, next to unbiased.

    Sums of squares are those of all columns together (squared Euclidean distances). It may fall below 0 where groups explain nothing.

    Args:
        groups: k ≥ 2 groups of rows `[n, width]`, two or more each.

    Source: Hays, Statistics for Psychologists, 1963; squared distances in place of squares: Anderson 2001,
    https://doi.org/10.1111/j.1442-9993.2001.01070.pp.x.
    """
    return float(_omega(_sums(groups), np.ones((1, len(groups))))[0])


@dataclass(frozen=True, slots=True)
class _Sums:
    """What ω² needs of each group."""

    counts: Floats  # [groups]
    means: Floats  # [groups, width], the mean of all rows taken off
    within: Floats  # [groups], sum of squares about the group's mean


def _sums(groups: Sequence[Floats]) -> _Sums:
    centre = np.concatenate(groups).mean(0)
    within = [float(((rows - rows.mean(0)) ** 2).sum()) for rows in groups]
    return _Sums(
        np.array([float(len(rows)) for rows in groups]),
        np.stack([rows.mean(0) - centre for rows in groups]),
        np.array(within),
    )


def _omega(sums: _Sums, weights: Floats) -> Floats:
    """ω² with group g counted w_g times: `[draws, groups]` → `[draws]`; NaN where nothing varies."""
    counts = weights * sums.counts
    total, groups = counts.sum(1), weights.sum(1)
    grand = counts @ sums.means
    between = counts @ (sums.means**2).sum(1) - (grand**2).sum(1) / total
    within = weights @ sums.within
    noise = within / (total - groups)
    bottom = between + within + noise
    shares: Floats = np.divide(
        between - (groups - 1) * noise, bottom, out=np.full(len(bottom), math.nan), where=bottom > 0
    )
    return shares


def _mean_distance(own: NDArray[Any], swapped: NDArray[Any]) -> float:
    n = min(len(own), len(swapped))
    return float(np.sqrt(((own[:n].astype(np.float64) - swapped[:n]) ** 2).mean(1)).mean())
