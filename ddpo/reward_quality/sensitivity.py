"""How far a reward moves under small edits of a picture, and the noise floor below which a difference of scores means nothing."""

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
    """What one edit does to the scores of one reward. The mean and sd are over the images; NaN where there are too few."""

    edit: str
    mean: float  # of the change, edited minus original
    mean_abs: float
    median_abs: float
    sd: float  # of the change, n - 1
    share: float  # mean_abs / standard deviation of the reward over the images
    n: int
    excluded: int  # images of which the original or the edited one could not be scored


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A reward under all edits."""

    effects: tuple[EditEffect, ...]
    spread: float  # standard deviation of the reward over the unedited images, n - 1
    noise_floor: float
    noise_edit: str  # the edit that it comes from; "" where it is unknown

    @property
    def noise_share(self) -> float:
        """The noise floor as a share of the spread over the images."""
        return _share(self.noise_floor, self.spread)


def edited_batch(
    picture: Image.Image,
    prompt: Prompt,
    edits: Mapping[str, Callable[[Image.Image], Image.Image]] = EDITS,
) -> ImageBatch:
    """The picture and then its edits in their order, as one batch."""
    variants = [picture, *(edit(picture) for edit in edits.values())]
    return ImageBatch.of_uint8(
        np.stack([np.asarray(variant) for variant in variants]), [prompt] * len(variants)
    )


def sensitivity(
    original: ArrayLike, edited: Mapping[str, ArrayLike], same_picture: Sequence[str] = SAME_IMAGE
) -> Sensitivity:
    """The effect of each edit, and the noise floor: the largest, over the edits of `same_picture`, of the median |change| over images.

    The median keeps one odd image from setting the floor; the largest keeps an edit to which the reward is blind by construction (a
    mirror-symmetric reward under `flip`) from hiding the others.

    Args:
        original: the scores of the images, float `[images]`; NaN marks what could not be scored.
        edited: for each edit the scores of the edited images, `[images]`.
        same_picture: the edits after which a picture is as good as before.
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
        if effect.edit in same_picture and effect.n
    }
    strongest = max(floors, key=lambda name: floors[name], default="")
    return Sensitivity(effects, spread, floors.get(strongest, math.nan), strongest)


def _effect(name: str, changes: Floats, spread: float) -> EditEffect:
    known = changes[~np.isnan(changes)]
    n, excluded = len(known), int(np.isnan(changes).sum())
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
