"""Checks of the scores and of their gradient against the card."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ddpo.rewards.card import Golden
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import (
    PROBE_NAMES,
    RewardUnderTest,
    score_bounds,
    tolerance_of,
)
from ddpo.types import ImageBatch

__all__ = ["CHECKS"]


def _fixture_scores(tested: RewardUnderTest, names: Iterable[str]) -> dict[str, float]:
    """The scores of 512×512 fixtures, each in a batch of its own, as golden scores are defined."""
    return {name: tested.values(tested.batch([tested.fixtures[name]]))[0] for name in names}


def _failure_or_skip(tested: RewardUnderTest, text: str) -> Exception:
    """`CheckFailed`, or `CheckSkipped` for options other than the defaults that the card means."""
    if tested.default_options:
        return CheckFailed(text)
    return CheckSkipped(f"options were changed, and the card describes the defaults: {text}")


@check("scores")
def golden_scores(tested: RewardUnderTest) -> str | None:
    """The fixtures get the scores that the card promises, within its tolerances."""
    goldens = tested.card.golden
    if not goldens:
        raise CheckSkipped("the card has no golden scores")
    found = _fixture_scores(tested, [golden.fixture for golden in goldens])
    for golden in goldens:
        score = found[golden.fixture]
        if not abs(score - golden.score) <= golden.tolerance:
            expected = f"{golden.score:.9g} ± {golden.tolerance:g}"
            text = f"{golden.fixture} scores {score:.9g} instead of {expected}"
            raise _failure_or_skip(tested, text)
    return f"{len(goldens)} scores"


@check("scores")
def direction(tested: RewardUnderTest) -> str | None:
    """The fixture with the highest golden score scores above the one with the lowest."""
    goldens = sorted(tested.card.golden, key=lambda golden: golden.score)
    if not goldens or _overlap(goldens[0], goldens[-1]):
        raise CheckSkipped("the card has no two golden scores that differ")
    low = goldens[0].fixture
    high = goldens[-1].fixture
    scores = _fixture_scores(tested, [low, high])
    if not scores[low] < scores[high]:
        text = f"{high} ({scores[high]:.7g}) should score above {low} ({scores[low]:.7g})"
        raise _failure_or_skip(tested, text)
    return f"{high} above {low}"


def _overlap(low: Golden, high: Golden) -> bool:
    """True if the tolerances of two golden scores allow that they are equal."""
    return low.score + low.tolerance >= high.score - high.tolerance


@check("scores")
def score_range(tested: RewardUnderTest) -> str | None:
    """No fixture and no probe image scores outside the range on the card."""
    if tested.card.range == (None, None):
        raise CheckSkipped("the card states no range")
    low, high = score_bounds(tested.card)
    small = (f"{name} at 64×64" for name in PROBE_NAMES)
    scores = dict(zip(small, tested.scores, strict=True)) | _fixture_scores(tested, PROBE_NAMES)
    share = tolerance_of(tested.card.dtype)
    for name, score in scores.items():
        if score < low - share * abs(low) or score > high + share * abs(high):
            limits = f"{tested.card.range[0]} … {tested.card.range[1]}"
            text = f"{name} scores {score:.7g}, outside the range {limits}"
            raise _failure_or_skip(tested, text)
    finite = [score for score in scores.values() if math.isfinite(score)]
    return f"{min(finite):.5g} … {max(finite):.5g}" if finite else None


REACH: Final = 2e-2  # pixels in [0, 1] move by this both ways; long, since scores are float32
POINTS: Final = 8  # of derivatives along a path: kinks such as those of max() average out
SHARE: Final = 0.05  # by which gradient and difference of scores may disagree beyond rounding
FLOAT32: Final = 2.0**-23


@check("scores")
def gradient(tested: RewardUnderTest) -> str | None:
    """Scores carry a gradient if and only if the card says `differentiable`.

    The gradient agrees with finite differences of the scores in two directions.
    """
    pixels = _interior_pixels().requires_grad_(True)
    with torch.enable_grad():
        output = tested.reward(_batch(tested, pixels))
    carries = output.values.requires_grad
    if not tested.card.differentiable:
        if carries:
            problem = "the scores carry a gradient, but the card does not say differentiable"
            raise CheckFailed(problem)
        return "no gradient, as the card says"
    if not carries:
        raise CheckFailed("the card says differentiable, but the scores carry no gradient")
    if torch.isnan(output.values).any():
        raise CheckSkipped("the probe images of this check cannot be scored")
    slope = _slope(tested, pixels.detach())
    if slope is None:
        raise CheckFailed("the card says differentiable, but no gradient reaches the pixels")
    if not torch.isfinite(slope).all():
        raise CheckFailed("the gradient has values that are not finite")
    return _compare(tested, pixels.detach(), slope)


def _compare(tested: RewardUnderTest, pixels: Tensor, slope: Tensor) -> str:
    """Compares the gradient with differences of scores, in a random direction and uphill.

    Args:
        tested: the reward under test.
        pixels: images, float32 `[batch, 3, height, width]`.
        slope: gradient of the summed scores at these pixels, of the same shape.

    Raises:
        CheckFailed: they disagree.
    """
    generator = torch.Generator().manual_seed(5)
    at_random = torch.rand(pixels.shape, generator=generator) - 0.5
    lengths = 0.5 + torch.rand(pixels.shape, generator=generator)
    uphill = slope / slope.abs().max().clamp(min=1e-30) * lengths
    size = float(tested.score(_batch(tested, pixels)).values.double().abs().sum())
    noise = 4 * FLOAT32 * size / REACH
    largest = 0.0
    for name, towards in {"a random direction": at_random, "the direction uphill": uphill}.items():
        ahead = _total(tested, pixels + REACH * towards)
        behind = _total(tested, pixels - REACH * towards)
        difference = (ahead - behind) / (2 * REACH)
        expected = _mean_slope(tested, pixels, towards)
        error = abs(difference - expected)
        scale = max(abs(difference), abs(expected))
        if not error <= SHARE * scale + noise:
            gradient_says = f"along {name} the gradient says {expected:.5g}"
            raise CheckFailed(f"{gradient_says} and the difference of scores {difference:.5g}")
        largest = max(largest, error / max(scale, noise))
    return f"agrees with finite differences to {largest:.1%}"


def _total(tested: RewardUnderTest, pixels: Tensor) -> float:
    """The sum of the scores."""
    return float(tested.score(_batch(tested, pixels)).values.double().sum())


def _mean_slope(tested: RewardUnderTest, pixels: Tensor, towards: Tensor) -> float:
    """The mean derivative along the path, which averages out kinks."""
    places = [REACH * ((2 * k + 1) / POINTS - 1) for k in range(POINTS)]
    slopes = [_slope(tested, pixels + place * towards) for place in places]
    derivatives = [
        float((slope.double() * towards.double()).sum()) for slope in slopes if slope is not None
    ]
    return sum(derivatives) / POINTS


def _slope(tested: RewardUnderTest, pixels: Tensor) -> Tensor | None:
    """The gradient of the summed scores, float32 `[batch, 3, height, width]`, or None."""
    variable = pixels.clone().requires_grad_(True)
    with torch.enable_grad():
        total = tested.reward(_batch(tested, variable)).values.sum()
        if not total.requires_grad:
            return None
        return torch.autograd.grad(total, variable, allow_unused=True)[0]


def _batch(tested: RewardUnderTest, pixels: Tensor) -> ImageBatch:
    """A batch of copied pixels, which a reward may spoil; a variable is passed on as it is."""
    own = pixels if pixels.requires_grad else pixels.clone()
    return ImageBatch(own, tested.prompts[: len(pixels)])


def _interior_pixels() -> Tensor:
    """A smooth image and a noisy one, float32 `[2, 3, 48, 64]` in [0.15, 0.85]."""
    y, x = np.mgrid[:48, :64]
    smooth = np.stack([np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in range(3)])
    noise = np.random.default_rng(4).uniform(-1, 1, smooth.shape)
    return torch.from_numpy(0.5 + 0.35 * np.stack([smooth, 0.7 * noise + 0.3 * smooth])).float()


CHECKS = (golden_scores, direction, score_range, gradient)
