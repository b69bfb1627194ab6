"""Dependence of images on their prompts: the swap test, and the variance that prompts explain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddpo.eval.analysis.diversity import Groups
from ddpo.stats.bootstrap import cluster_weights, percentile_interval
from ddpo.stats.ratio import divided, ratio_interval

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
"""Prompt id → rows `[n, width]` of its images, and of the same noise with another prompt."""


@dataclass(frozen=True, slots=True)
class Dependence:
    """The influence of the prompt on one model's images of one split; NaN where not measured.

    "swap": mean distance of two images of the same noise and different prompts.
    "explained": ω², the share of variance between prompts.
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
    """Prompt id → id of the prompt that is sampled on its noise; {} below two prompts.

    It is half the list away, since neighbours are often alike.
    """
    if len(ids) < 2:
        return {}
    return {id: ids[(place + len(ids) // 2) % len(ids)] for place, id in enumerate(ids)}


def swap_change(model: str, split: str, base: SwapPairs, tuned: SwapPairs) -> Dependence:
    """The swap test: the distance an image moves when only its prompt changes.

    It is 0 for a model that ignores prompts. The distance is √ of the mean squared difference, of
    features or of pixels, in their own units. Unlike a cosine, it stays the same when training
    moves all images the same way.

    Args:
        model: name of the tuned model.
        split: name of the split.
        base: images of the base model.
        tuned: images of the tuned model, with the same noise and the same other prompts.
    """
    shared = [id for id in base if id in tuned and len(base[id][0]) and len(tuned[id][0])]
    before = np.array([_mean_distance(*base[id]) for id in shared], dtype=np.float64)
    after = np.array([_mean_distance(*tuned[id]) for id in shared], dtype=np.float64)
    means = [float(values.mean()) if shared else math.nan for values in (before, after)]
    interval = ratio_interval(before, after)
    return Dependence(model, split, "swap", means[0], means[1], *interval, len(shared))


def explained_change(model: str, split: str, base: Groups, tuned: Groups) -> Dependence:
    """ω² of the images' features by prompt, before and after, with a bootstrap over prompts.

    The ratio is NaN where the base model's ω² is not above 0.

    Args:
        model: name of the tuned model.
        split: name of the split.
        base: features (or pixels) of the base model's images; prompts with fewer than two images
            are left out.
        tuned: features (or pixels) of the tuned model's images.
    """
    unknown = (math.nan, math.nan, math.nan)
    shared = [id for id in base if id in tuned and min(len(base[id]), len(tuned[id])) > 1]
    if len(shared) < 2:
        return Dependence(
            model, split, "explained", math.nan, math.nan, *unknown, prompts=len(shared)
        )
    sides = [_sums([groups[id].astype(np.float64) for id in shared]) for groups in (base, tuned)]
    before, after = (float(_omega(side, np.ones((1, len(shared))))[0]) for side in sides)
    interval = unknown
    if before > 0:
        resampled = [
            divided(_omega(sides[1], drawn), _omega(sides[0], drawn))
            for drawn in cluster_weights(range(len(shared)))
        ]
        interval = (after / before, *percentile_interval(np.concatenate(resampled)))
    return Dependence(model, split, "explained", before, after, *interval, len(shared))


def omega_squared(groups: Sequence[Floats]) -> float:
    """The share of variance that k groups explain, almost unbiased.

    ω² = (SS_between - (k - 1) MS_within) / (SS_total + MS_within). Sums of squares are those of all
    columns together (squared Euclidean distances). ω² may fall below 0 where groups explain
    nothing.

    Args:
        groups: k ≥ 2 groups of rows `[n, width]`, two or more each.

    Source: Hays, Statistics for Psychologists, 1963; squared distances in place of squares:
    Anderson 2001, https://doi.org/10.1111/j.1442-9993.2001.01070.pp.x.
    """
    return float(_omega(_sums(groups), np.ones((1, len(groups))))[0])


@dataclass(frozen=True, slots=True)
class _Sums:
    """The statistics of each group that determine ω²."""

    counts: Floats  # [groups]
    means: Floats  # [groups, width], minus the mean of all rows
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
    """ω² with multiplicities `[draws, groups]` of the groups: `[draws]`; NaN without variance."""
    counts = weights * sums.counts
    total = counts.sum(1)
    groups = weights.sum(1)
    grand = counts @ sums.means
    between = counts @ (sums.means**2).sum(1) - (grand**2).sum(1) / total
    within = weights @ sums.within
    noise = within / (total - groups)
    return divided(between - (groups - 1) * noise, between + within + noise)


def _mean_distance(own: NDArray[Any], swapped: NDArray[Any]) -> float:
    n = min(len(own), len(swapped))
    return float(np.sqrt(((own[:n].astype(np.float64) - swapped[:n]) ** 2).mean(1)).mean())
