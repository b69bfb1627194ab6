"""Diversity: how different the pictures of one prompt are from each other, and the prompts from each other, before and after training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.rewards.cards.diversity import DIVERSITY_CARDS
from ddpo.rewards.tools.availability import availability
from ddpo.stats.bootstrap import cluster_weights, percentile_interval

if TYPE_CHECKING:
    from ddpo.rewards.scoring.scorer import Scorer
    from ddpo.types import ImageBatch

__all__ = [
    "GROUP_MEASURES",
    "DiversityChange",
    "ImageFeatures",
    "diversity_changes",
    "group_reward_change",
    "group_rewards_here",
    "ratio_interval",
    "score_groups",
    "small_pixels",
    "vendi",
]

SIDE: Final = 64  # pixels: finer differences are texture, and distances of 12,288 numbers are quick
GROUP_MEASURES: Final = {
    "diversity_lpips": "lpips",
    "diversity_dino": "dino",
    "vendi": "vendi dino",
}
"""Group rewards of the zoo → what a `DiversityChange` calls them."""

Floats = NDArray[np.float64]
Groups = Mapping[str, NDArray[Any]]
"""Prompt id → one row per picture, `[n, width]`, in the order of the pictures' indices."""


@dataclass(frozen=True, slots=True)
class DiversityChange:
    """One measure of one model on one split, beside the base model's. NaN where there are too few pictures."""

    model: str
    split: str
    measure: str  # "pixels", "features", "lpips", "dino", "vendi features", "seed spread", …
    scope: Literal["within", "across"]  # pictures of one prompt; means of the prompts
    base: float
    tuned: float
    ratio: float  # tuned / base
    low: float  # 95 % interval of the ratio, bootstrap over prompts
    high: float
    prompts: int  # that were used


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What is compared of one model's pictures of one split."""

    pixels: Groups  # `small_pixels`
    features: Groups = field(
        default_factory=dict
    )  # of the base model's own view; empty where it has none


def small_pixels(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures with each side reduced to at most 64 pixels by averaging areas: uint8 `[n, height, width, 3]` → uint8 `[n, width]`."""
    height, width = pictures.shape[1:3]
    size = min(width, SIDE), min(height, SIDE)
    if size != (width, height):
        pictures = np.stack(
            [
                np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
                for picture in pictures
            ]
        )
    return pictures.reshape(len(pictures), -1)


def diversity_changes(
    model: str, split: str, base: ImageFeatures, tuned: ImageFeatures
) -> tuple[DiversityChange, ...]:
    """All measures of one model on one split.

    Within a prompt, means over prompts: "pixels", the mean distance of two pictures, √ of the mean squared difference of 8-bit values over
    255; "features", the same with 1 - cosine of features, the base model's mean feature taken off; "vendi features", the effective number
    of different pictures (`vendi`); "seed spread", the variance between seeds, Σ|x - x̄|²/(n - 1), of features, or of pixels where there
    are none: its ratio is the test for collapse. Across prompts: the mean distance of two prompts' mean pictures and mean features.

    Cosines also fall together where training moves all pictures the same way, a change of style; the variance between seeds does not.
    Distances of means contain the noise of n pictures, so only equal n are compared: of every prompt as many pictures as both models have.

    Args:
        model: Name of the tuned model.
        split: Name of the split.
        base: The base model's pictures.
        tuned: The tuned model's pictures, of the same prompts, seeds and noise.
    """
    made: list[DiversityChange] = []
    pixels = _paired(base.pixels, tuned.pixels)
    features = _centred(_paired(base.features, tuned.features))
    spread_of = features or pixels
    within: list[tuple[str, _Pairs, Callable[[Floats], float]]] = [
        ("pixels", pixels, _mean_rms),
        ("features", features, _mean_cosine),
    ]
    within += [("vendi features", features, vendi), ("seed spread", spread_of, _variance)]
    for measure, groups, of in within:
        if groups:
            values = np.array([[of(rows) for rows in pair] for pair in groups.values()]).T
            made.append(_change(model, split, measure, values[0], values[1], len(groups)))
    across: list[tuple[str, _Pairs, Callable[[Floats], Floats]]] = [
        ("pixels", pixels, _rms),
        ("features", features, _cosine),
    ]
    made += [
        _across(model, split, measure, groups, distances)
        for measure, groups, distances in across
        if groups
    ]
    return tuple(made)


def vendi(features: Floats) -> float:
    """exp(-Σ λ ln λ) over the eigenvalues λ of K/n, K the cosines of the rows: 1 if all are alike, n if all are orthogonal.

    Args:
        features: `[n, width]`; a row of zeros is like other such rows and like no other.

    Source: Friedman & Dieng, "The Vendi Score", arXiv 2210.02410, definition 3.1.
    """
    rows = _unit(features)
    shares = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def group_rewards_here() -> tuple[str, ...]:
    """Ids of the zoo's measures of diversity whose weights and libraries are on this machine."""
    return tuple(id for id in GROUP_MEASURES if availability(DIVERSITY_CARDS[id]).complete)


def score_groups(scorer: Scorer, groups: Mapping[str, ImageBatch]) -> dict[str, float]:
    """What a reward that judges groups says of each prompt's pictures; NaN where it says nothing.

    Args:
        scorer: Of a group reward.
        groups: Prompt id → the pictures of this prompt, two or more, as many of the base model as of the tuned one.

    Raises:
        RewardFailure: As `Scorer.score`.
    """
    return {prompt: float(scorer.score(batch).values[0]) for prompt, batch in groups.items()}


def group_reward_change(
    model: str, split: str, measure: str, base: Mapping[str, float], tuned: Mapping[str, float]
) -> DiversityChange:
    """The change of a measure that was taken prompt by prompt, on the prompts where both have one."""
    shared = [
        id for id in base if not math.isnan(base[id]) and not math.isnan(tuned.get(id, math.nan))
    ]
    values = np.array([[base[id], tuned[id]] for id in shared], dtype=np.float64).reshape(-1, 2).T
    return _change(model, split, measure, values[0], values[1], len(shared))


def ratio_interval(base: Floats, tuned: Floats) -> tuple[float, float, float]:
    """Σ tuned / Σ base with its 95 % percentile interval, by a bootstrap that draws the same prompts for both; NaN without a base.

    Args:
        base: One value per prompt, `[prompts]`.
        tuned: The same prompts', `[prompts]`.

    Source: Davison & Hinkley 1997, section 2.4 (the ratio of means of pairs).
    """
    if not len(base) or not base.sum() > 0:
        return math.nan, math.nan, math.nan
    if len(base) < 2:
        return float(tuned.sum() / base.sum()), math.nan, math.nan
    draws = np.concatenate(
        [_share(weights @ tuned, weights @ base) for weights in cluster_weights(range(len(base)))]
    )
    return float(tuned.sum() / base.sum()), *percentile_interval(draws)


_Pairs = dict[str, tuple[NDArray[Any], NDArray[Any]]]


def _paired(base: Groups, tuned: Groups) -> _Pairs:
    """The rows of each prompt that has two pictures or more of both models: as many of one as of the other, the first ones."""
    counts = {id: min(len(base[id]), len(tuned[id])) for id in base if id in tuned}
    return {
        id: (base[id][:n], tuned[id][:n]) for id, n in counts.items() if n > 1
    }  # pixels stay bytes: there may be many


def _centred(pairs: _Pairs) -> _Pairs:
    if not pairs:
        return pairs
    centre = np.concatenate([base for base, _ in pairs.values()]).mean(0, dtype=np.float64)
    return {id: (base - centre, tuned - centre) for id, (base, tuned) in pairs.items()}


def _change(
    model: str, split: str, measure: str, base: Floats, tuned: Floats, prompts: int
) -> DiversityChange:
    means = [float(values.mean()) if prompts else math.nan for values in (base, tuned)]
    return DiversityChange(
        model, split, measure, "within", means[0], means[1], *ratio_interval(base, tuned), prompts
    )


def _across(
    model: str, split: str, measure: str, pairs: _Pairs, distances: Callable[[Floats], Floats]
) -> DiversityChange:
    """The mean distance of two prompts' means; a resample counts no prompt against itself."""
    base, tuned = (
        distances(np.stack([pair[side].mean(0) for pair in pairs.values()])) for side in (0, 1)
    )
    once = np.ones((1, len(base)))
    before, after = float(_mean_between(base, once)[0]), float(_mean_between(tuned, once)[0])
    draws = [
        _share(_mean_between(tuned, weights), _mean_between(base, weights))
        for weights in cluster_weights(range(len(base)))
    ]
    low, high = (
        percentile_interval(np.concatenate(draws)) if len(base) > 2 else (math.nan, math.nan)
    )
    ratio = after / before if before > 0 else math.nan
    return DiversityChange(
        model, split, measure, "across", before, after, ratio, low, high, len(base)
    )


def _mean_between(distances: Floats, weights: Floats) -> Floats:
    """Mean distance over pairs of different prompts that were drawn w times each: `[prompts, prompts]`, `[draws, prompts]` → `[draws]`."""
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    return _share(np.einsum("dp,pq,dq->d", weights, distances, weights, optimize=True), pairs)


def _share(top: Floats, bottom: Floats) -> Floats:
    shares: Floats = np.divide(top, bottom, out=np.full(len(top), math.nan), where=bottom > 0)
    return shares


def _rms(pixels: NDArray[Any]) -> Floats:
    """Distances `[n, n]` of pixel rows `[n, width]`: √ of the mean squared difference, over 255."""
    rows = pixels.astype(np.float64)  # in which sums of products of bytes are exact
    squares = (rows**2).sum(1)
    apart = squares[:, None] + squares[None] - 2 * rows @ rows.T
    np.fill_diagonal(apart, 0)
    distances: Floats = np.sqrt(apart.clip(0) / rows.shape[1]) / 255
    return distances


def _cosine(rows: Floats) -> Floats:
    """1 - cosine of every two rows, `[n, n]`."""
    unit = _unit(rows)
    apart: Floats = (1 - unit @ unit.T).clip(0)
    np.fill_diagonal(apart, 0)
    return apart


def _unit(rows: Floats) -> Floats:
    """Rows of length 1; rows of zeros, which have no direction, along an axis of their own. `[n, width]` → `[n, width + 1]`."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.concatenate(
        [np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0), lengths == 0], axis=1
    )


def _mean_rms(rows: Floats) -> float:
    return _mean_pair(_rms(rows))


def _mean_cosine(rows: Floats) -> float:
    return _mean_pair(_cosine(rows))


def _mean_pair(distances: Floats) -> float:
    n = len(distances)
    return float(distances.sum() / (n * (n - 1)))


def _variance(rows: Floats) -> float:
    return float(rows.var(0, ddof=1, dtype=np.float64).sum())
