"""Checks of the scores and their gradient against the card."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, RewardUnderTest, tolerance_of
from ddpo.types import ImageBatch

__all__ = ["CHECKS"]


def _fixture_scores(subject: RewardUnderTest, names: list[str]) -> dict[str, float]:
    """The scores of 512×512 fixtures, each in a batch of its own, as the goldens are meant."""
    return {name: subject.values(subject.batch([subject.fixtures[name]]))[0] for name in names}


def _fault(subject: RewardUnderTest, text: str) -> Exception:
    """`CheckFailed`, or `CheckSkipped` if options differ from the defaults that the card means."""
    return (
        CheckFailed(text)
        if subject.default_options
        else CheckSkipped(f"options were changed, and the card speaks of the defaults: {text}")
    )


@check("scores")
def golden_scores(subject: RewardUnderTest) -> str | None:
    """The fixtures get the scores that the card promises, within its tolerances."""
    goldens = subject.card.golden
    if not goldens:
        raise CheckSkipped("the card has no golden scores")
    found = _fixture_scores(subject, [golden.fixture for golden in goldens])
    for golden in goldens:
        score = found[golden.fixture]
        if not abs(score - golden.score) <= golden.tolerance:
            raise _fault(
                subject,
                f"{golden.fixture} scores {score:.9g} instead of "
                f"{golden.score:.9g} ± {golden.tolerance:g}",
            )
    return f"{len(goldens)} scores"


@check("scores")
def direction(subject: RewardUnderTest) -> str | None:
    """Of the two fixtures that the card puts furthest apart, the same one is ahead."""
    goldens = sorted(subject.card.golden, key=lambda golden: golden.score)
    if (
        not goldens
        or goldens[0].score + goldens[0].tolerance >= goldens[-1].score - goldens[-1].tolerance
    ):
        raise CheckSkipped("the card has no two golden scores that differ")
    low, high = goldens[0].fixture, goldens[-1].fixture
    found = _fixture_scores(subject, [low, high])
    if not found[low] < found[high]:
        raise _fault(
            subject, f"{high} ({found[high]:.7g}) should score above {low} ({found[low]:.7g})"
        )
    return f"{high} above {low}"


@check("scores")
def score_range(subject: RewardUnderTest) -> str | None:
    """No fixture and no probe picture scores outside the range on the card."""
    low, high = subject.card.range
    if low is None and high is None:
        raise CheckSkipped("the card states no range")
    scores = dict(
        zip((f"{name} at 64×64" for name in PROBE_NAMES), subject.scores, strict=True)
    ) | _fixture_scores(subject, list(PROBE_NAMES))
    share = tolerance_of(subject.card.dtype)
    for name, score in scores.items():
        below = low is not None and score < low - share * abs(low)
        if below or (high is not None and score > high + share * abs(high)):
            raise _fault(subject, f"{name} scores {score:.7g}, outside the range {low} … {high}")
    finite = [score for score in scores.values() if math.isfinite(score)]
    return f"{min(finite):.5g} … {max(finite):.5g}" if finite else None


REACH: Final = 2e-2  # of a path to either side, in pixels of [0, 1]; long, since scores are float32
POINTS: Final = (
    8  # at which the derivative along a path is taken: kinks such as those of max() average out
)
SHARE: Final = 0.05  # by which gradient and difference of scores may disagree beyond rounding
FLOAT32: Final = 2.0**-23


@check("scores")
def gradient(subject: RewardUnderTest) -> str | None:
    """Scores carry a gradient if and only if the card says so; finite differences agree with it."""
    pixels = _interior_pixels().requires_grad_(True)
    with torch.enable_grad():
        output = subject.reward(_batch(subject, pixels))
    carries = output.values.requires_grad
    if not subject.card.differentiable:
        if carries:
            raise CheckFailed(
                "the scores carry a gradient, but the card does not say differentiable"
            )
        return "no gradient, as the card says"
    if not carries:
        raise CheckFailed("the card says differentiable, but the scores carry no gradient")
    if torch.isnan(output.values).any():
        raise CheckSkipped("the probe pictures of this check cannot be scored")
    slope = _slope(subject, pixels.detach())
    if slope is None:
        raise CheckFailed("the card says differentiable, but no gradient reaches the pixels")
    if not torch.isfinite(slope).all():
        raise CheckFailed("the gradient has values that are not finite")
    return _compare(subject, pixels.detach(), slope)


def _compare(subject: RewardUnderTest, pixels: Tensor, slope: Tensor) -> str:
    random = torch.Generator().manual_seed(5)
    at_random = torch.rand(pixels.shape, generator=random) - 0.5
    uphill = (
        slope
        / slope.abs().max().clamp(min=1e-30)
        * (0.5 + torch.rand(pixels.shape, generator=random))
    )
    size = float(subject.score(_batch(subject, pixels)).values.double().abs().sum())
    largest = 0.0
    for name, towards in {"a random direction": at_random, "the direction uphill": uphill}.items():
        ahead, behind = (
            float(subject.score(_batch(subject, pixels + end * towards)).values.double().sum())
            for end in (REACH, -REACH)
        )
        found, expected = (ahead - behind) / (2 * REACH), _mean_slope(subject, pixels, towards)
        noise = 4 * FLOAT32 * size / REACH
        if not abs(found - expected) <= SHARE * max(abs(found), abs(expected)) + noise:
            raise CheckFailed(
                f"along {name} the gradient says {expected:.5g} "
                f"and the difference of scores {found:.5g}"
            )
        largest = max(largest, abs(found - expected) / max(abs(found), abs(expected), noise))
    return f"agrees with finite differences to {largest:.1%}"


def _mean_slope(subject: RewardUnderTest, pixels: Tensor, towards: Tensor) -> float:
    """The mean derivative along the path, which averages out kinks."""
    places = [REACH * ((2 * k + 1) / POINTS - 1) for k in range(POINTS)]
    slopes = [_slope(subject, pixels + place * towards) for place in places]
    return (
        sum(
            float((slope.double() * towards.double()).sum())
            for slope in slopes
            if slope is not None
        )
        / POINTS
    )


def _slope(subject: RewardUnderTest, pixels: Tensor) -> Tensor | None:
    """The gradient of the summed scores, float32 `[batch, 3, height, width]`, or None."""
    variable = pixels.clone().requires_grad_(True)
    with torch.enable_grad():
        total = subject.reward(_batch(subject, variable)).values.sum()
        return (
            torch.autograd.grad(total, variable, allow_unused=True)[0]
            if total.requires_grad
            else None
        )


def _batch(subject: RewardUnderTest, pixels: Tensor) -> ImageBatch:
    """A batch of its own, which a reward may spoil; a variable is passed on as it is."""
    return ImageBatch(
        pixels if pixels.requires_grad else pixels.clone(), subject.prompts[: len(pixels)]
    )


def _interior_pixels() -> Tensor:
    """A smooth image and a noisy one, float32 `[2, 3, 48, 64]` in [0.15, 0.85]."""
    y, x = np.mgrid[:48, :64]
    smooth = np.stack([np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in range(3)])
    noise = np.random.default_rng(4).uniform(-1, 1, smooth.shape)
    return torch.from_numpy(0.5 + 0.35 * np.stack([smooth, 0.7 * noise + 0.3 * smooth])).float()


CHECKS = (golden_scores, direction, score_range, gradient)
