"""Changes of diversity by training: between images of one prompt, and between prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.stats.bootstrap import cluster_weights, percentile_interval
from ddpo.stats.ratio import divided, ratio_interval

__all__ = ["DiversityChange", "ImageFeatures", "diversity_changes", "small_pixels", "vendi"]

SIDE: Final = 64  # pixels; finer differences are texture, and small images are quick to compare

Floats = NDArray[np.float64]
Groups = Mapping[str, NDArray[Any]]
"""Prompt id → one row per image, `[n, width]`, in the order of the images' indices."""


@dataclass(frozen=True, slots=True)
class DiversityChange:
    """One measure of one model on one split, beside the base model's; NaN with too few images."""

    model: str
    split: str
    measure: str  # "pixels", "features", "lpips", "dino", "vendi features", "seed spread", …
    scope: Literal["within", "across"]  # images of one prompt; means of the prompts
    base: float
    tuned: float
    ratio: float  # tuned / base
    low: float  # 95 % interval of the ratio, bootstrap over prompts
    high: float
    prompts: int  # number of prompts in use


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Rows that represent one model's images of one split."""

    pixels: Groups  # `small_pixels`
    features: Groups = field(default_factory=dict)  # of the base model's UNet; may be empty


def small_pixels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of images that are averaged down to at most 64 pixels a side.

    Args:
        images: uint8 `[n, height, width, 3]`.

    Returns:
        uint8 `[n, width]`.
    """
    height, width = images.shape[1:3]
    size = (min(width, SIDE), min(height, SIDE))
    if size != (width, height):
        reduced = [Image.fromarray(one).resize(size, Image.Resampling.BOX) for one in images]
        images = np.stack([np.asarray(one) for one in reduced])
    return images.reshape(len(images), -1)


def diversity_changes(
    model: str, split: str, base: ImageFeatures, tuned: ImageFeatures
) -> tuple[DiversityChange, ...]:
    """All measures of one model on one split.

    Within a prompt, averaged over prompts:
        "pixels": mean distance of two images, √ of the mean squared difference of 8-bit values
            over 255.
        "features": mean 1 - cosine of features about the base model's mean feature.
        "vendi features": effective number of different images (`vendi`).
        "seed spread": variance between seeds, Σ|x - x̄|²/(n - 1), of features, or of pixels where
            there are none. Its ratio is the test for collapse.
    Across prompts: mean distance of two prompts' mean images and mean features.

    Cosines also fall where training moves all images the same way, as a change of style does; the
    variance between seeds does not. Distances of means contain the noise of n images, so of every
    prompt as many images are used as both models have.

    Args:
        model: name of the tuned model.
        split: name of the split.
        base: images of the base model.
        tuned: images of the tuned model, of the same prompts, seeds and noise.
    """
    pixels = _paired(base.pixels, tuned.pixels)
    features = _centred(_paired(base.features, tuned.features))
    within: list[tuple[str, _Pairs, Callable[[Floats], float]]] = [
        ("pixels", pixels, _mean_rms),
        ("features", features, _mean_cosine),
        ("vendi features", features, vendi),
        ("seed spread", features or pixels, _variance),
    ]
    across: list[tuple[str, _Pairs, Callable[[Floats], Floats]]] = [
        ("pixels", pixels, _rms),
        ("features", features, _cosine),
    ]
    return (
        *(
            within_change(model, split, name, *_values(of, rows))
            for name, rows, of in within
            if rows
        ),
        *(_across(model, split, name, rows, apart) for name, rows, apart in across if rows),
    )


def within_change(
    model: str, split: str, measure: str, base: Floats, tuned: Floats
) -> DiversityChange:
    """The change of a measure within prompts.

    Args:
        model: name of the tuned model.
        split: name of the split.
        measure: name of the measure.
        base: value of each prompt for the base model, `[prompts]`.
        tuned: value of each prompt for the tuned model, `[prompts]`.
    """
    prompts = len(base)
    means = [float(values.mean()) if prompts else math.nan for values in (base, tuned)]
    interval = ratio_interval(base, tuned)
    return DiversityChange(model, split, measure, "within", means[0], means[1], *interval, prompts)


def vendi(features: Floats) -> float:
    """The Vendi score of rows `[n, width]` by cosine: 1 if all are alike, n if orthogonal."""
    import torch  # here, since reading a report loads no torch

    from ddpo.rewards.models.vendi import cosine_kernel, vendi_score

    return vendi_score(cosine_kernel(torch.from_numpy(features)))


_Pairs = dict[str, tuple[NDArray[Any], NDArray[Any]]]
"""Prompt id → rows of the base model's images, and as many of the tuned model's."""


def _paired(base: Groups, tuned: Groups) -> _Pairs:
    """The first rows of each prompt with at least two images of both models, equally many of each.

    Pixels stay bytes, since there may be many.
    """
    counts = {id: min(len(base[id]), len(tuned[id])) for id in base if id in tuned}
    return {id: (base[id][:n], tuned[id][:n]) for id, n in counts.items() if n > 1}


def _centred(pairs: _Pairs) -> _Pairs:
    if not pairs:
        return pairs
    centre = np.concatenate([base for base, _ in pairs.values()]).mean(0, dtype=np.float64)
    return {id: (base - centre, tuned - centre) for id, (base, tuned) in pairs.items()}


def _values(measure: Callable[[Floats], float], pairs: _Pairs) -> Iterator[Floats]:
    """The measure of each prompt `[prompts]`, first for the base model, then for the tuned one."""
    for side in (0, 1):
        yield np.array([measure(pair[side]) for pair in pairs.values()])


def _across(
    model: str, split: str, measure: str, pairs: _Pairs, distances: Callable[[Floats], Floats]
) -> DiversityChange:
    """The mean distance of two prompts' means; a resample counts no prompt against itself."""
    base, tuned = (
        distances(np.stack([pair[side].mean(0) for pair in pairs.values()])) for side in (0, 1)
    )
    prompts = len(base)
    once = np.ones((1, prompts))
    before = float(_mean_between(base, once)[0])
    after = float(_mean_between(tuned, once)[0])
    ratio = after / before if before > 0 else math.nan
    interval = (math.nan, math.nan)
    if prompts > 2:
        resampled = [
            divided(_mean_between(tuned, drawn), _mean_between(base, drawn))
            for drawn in cluster_weights(range(prompts))
        ]
        interval = percentile_interval(np.concatenate(resampled))
    return DiversityChange(
        model, split, measure, "across", before, after, ratio, *interval, prompts
    )


def _mean_between(distances: Floats, weights: Floats) -> Floats:
    """Mean distance over pairs of different prompts, in each resample.

    Args:
        distances: `[prompts, prompts]`.
        weights: multiplicity of each prompt in each resample, `[draws, prompts]`.

    Returns:
        `[draws]`.
    """
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    return divided(np.einsum("dp,pq,dq->d", weights, distances, weights, optimize=True), pairs)


def _rms(pixels: NDArray[Any]) -> Floats:
    """√ of the mean squared difference over 255 of every two rows: `[n, width]` → `[n, n]`."""
    rows = pixels.astype(np.float64)  # in which sums of products of bytes are exact
    squares = (rows**2).sum(1)
    apart = squares[:, None] + squares[None] - 2 * rows @ rows.T
    np.fill_diagonal(apart, 0)
    distances: Floats = np.sqrt(apart.clip(0) / rows.shape[1]) / 255
    return distances


def _cosine(rows: Floats) -> Floats:
    """1 - cosine of every two rows: `[n, width]` → `[n, n]`."""
    import torch

    from ddpo.rewards.models.diversity import cosine_distances

    distances: Floats = cosine_distances(torch.from_numpy(rows)).numpy()
    return distances


def _mean_rms(rows: Floats) -> float:
    return _mean_pair(_rms(rows))


def _mean_cosine(rows: Floats) -> float:
    return _mean_pair(_cosine(rows))


def _mean_pair(distances: Floats) -> float:
    n = len(distances)
    return float(distances.sum() / (n * (n - 1)))


def _variance(rows: Floats) -> float:
    return float(rows.var(0, ddof=1, dtype=np.float64).sum())
