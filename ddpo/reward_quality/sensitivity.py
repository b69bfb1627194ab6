"""The sensitivity of a reward to small edits, and its noise floor for differences of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ddpo.reward_quality.edits import EDITS, SAME_IMAGE
from ddpo.types import ImageBatch, Prompt

__all__ = ["EditEffect", "Sensitivity", "edited_batch", "sensitivity"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EditEffect:
    """The effect of one edit on the scores of one reward; NaN with too few images."""

    edit: str
    mean: float  # of the change, edited minus original
    mean_abs: float
    median_abs: float
    sd: float  # of the change, n - 1
    share: float  # mean_abs / standard deviation of the reward over the images
    n: int
    excluded: int  # images without a score of the original or the edited one


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The effects of all edits on one reward, and its noise floor."""

    effects: tuple[EditEffect, ...]
    spread: float  # standard deviation of the reward over the unedited images, n - 1
    noise_floor: float
    noise_edit: str  # the edit that it comes from; "" where it is unknown

    @property
    def noise_share(self) -> float:
        """The noise floor as a share of the spread over the images."""
        return _share(self.noise_floor, self.spread)


def edited_batch(
    image: Image.Image,
    prompt: Prompt,
    edits: Mapping[str, Callable[[Image.Image], Image.Image]] = EDITS,
) -> ImageBatch:
    """The image and then its edits in their order, as one batch."""
    variants = [image, *(edit(image) for edit in edits.values())]
    return ImageBatch.of_uint8(
        np.stack([np.asarray(variant) for variant in variants]), [prompt] * len(variants)
    )


def sensitivity(
    original: ArrayLike, edited: Mapping[str, ArrayLike], same_image: Sequence[str] = SAME_IMAGE
) -> Sensitivity:
    """The effect of each edit, and the noise floor.

    The floor is the largest median |change| over the edits of `same_image`. By the median, one odd
    image does not set the floor. By the largest, an edit that the reward cannot see (such as `flip`
    for a mirror-symmetric reward) does not hide the others.

    Args:
        original: scores of the images, float `[images]`; NaN where there is no score.
        edited: edit → scores of the edited images, `[images]`.
        same_image: edits that leave an image as good as before.
    """
    base = np.asarray(original, dtype=np.float64)
    known = base[~np.isnan(base)]
    spread = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    effects = tuple(
        _effect(name, np.asarray(scores, dtype=np.float64) - base, spread)
        for name, scores in edited.items()
    )
    floors = {
        effect.edit: effect.median_abs
        for effect in effects
        if effect.edit in same_image and effect.n
    }
    strongest = max(floors, key=lambda name: floors[name], default="")
    return Sensitivity(effects, spread, floors.get(strongest, math.nan), strongest)


def _effect(name: str, changes: Floats, spread: float) -> EditEffect:
    known = changes[~np.isnan(changes)]
    n = len(known)
    excluded = len(changes) - n
    if not n:
        return EditEffect(name, math.nan, math.nan, math.nan, math.nan, math.nan, 0, excluded)
    sizes = np.abs(known)
    sd = float(known.std(ddof=1)) if n > 1 else math.nan
    mean_abs = float(sizes.mean())
    return EditEffect(
        name,
        float(known.mean()),
        mean_abs,
        float(np.median(sizes)),
        sd,
        _share(mean_abs, spread),
        n,
        excluded,
    )


def _share(change: float, spread: float) -> float:
    return change / spread if spread > 0 else math.nan
