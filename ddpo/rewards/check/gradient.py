"""The check of gradients: against the card, and against finite differences."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from ddpo.rewards.check.definition import Fault, NotApplicable, check
from ddpo.rewards.check.subject import Subject
from ddpo.types import ImageBatch

__all__ = ["CHECKS"]

REACH: Final = 2e-2  # of a path to either side, in pixels of [0, 1]; long, since scores are float32
POINTS: Final = (
    8  # at which the derivative along a path is taken: kinks such as those of max() average out
)
SHARE: Final = 0.05  # by which gradient and difference of scores may disagree beyond rounding
FLOAT32: Final = 2.0**-23


@check("scores")
def gradient(subject: Subject) -> str | None:
    """Scores carry a gradient exactly if the card says `differentiable`, and it agrees with finite differences in two directions."""
    pixels = _interior_pixels().requires_grad_(True)
    with torch.enable_grad():
        output = subject.reward(_batch(subject, pixels))
    carries = output.values.requires_grad
    if not subject.card.differentiable:
        if carries:
            raise Fault("the scores carry a gradient, but the card does not say differentiable")
        return "no gradient, as the card says"
    if not carries:
        raise Fault("the card says differentiable, but the scores carry no gradient")
    if torch.isnan(output.values).any():
        raise NotApplicable("the probe pictures of this check cannot be scored")
    slope = _slope(subject, pixels.detach())
    if slope is None:
        raise Fault("the card says differentiable, but no gradient reaches the pixels")
    if not torch.isfinite(slope).all():
        raise Fault("the gradient has values that are not finite")
    return _compare(subject, pixels.detach(), slope)


def _compare(subject: Subject, pixels: Tensor, slope: Tensor) -> str:
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
            raise Fault(
                f"along {name} the gradient says {expected:.5g} and the difference of scores {found:.5g}"
            )
        largest = max(largest, abs(found - expected) / max(abs(found), abs(expected), noise))
    return f"agrees with finite differences to {largest:.1%}"


def _mean_slope(subject: Subject, pixels: Tensor, towards: Tensor) -> float:
    """The mean of the derivative along the path: the difference of its ends over its length, also where there are kinks."""
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


def _slope(subject: Subject, pixels: Tensor) -> Tensor | None:
    """The gradient of the summed scores, float32 `[batch, 3, height, width]`; None if none reaches the pixels."""
    variable = pixels.clone().requires_grad_(True)
    with torch.enable_grad():
        total = subject.reward(_batch(subject, variable)).values.sum()
        return (
            torch.autograd.grad(total, variable, allow_unused=True)[0]
            if total.requires_grad
            else None
        )


def _batch(subject: Subject, pixels: Tensor) -> ImageBatch:
    """A batch of its own, which a reward may spoil; a variable is passed on as it is."""
    return ImageBatch(
        pixels if pixels.requires_grad else pixels.clone(), subject.prompts[: len(pixels)]
    )


def _interior_pixels() -> Tensor:
    """float32 `[2, 3, 48, 64]` in [0.15, 0.85], so that no step leaves [0, 1]: a smooth picture and a noisy one."""
    y, x = np.mgrid[:48, :64]
    smooth = np.stack([np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in range(3)])
    noise = np.random.default_rng(4).uniform(-1, 1, smooth.shape)
    return torch.from_numpy(0.5 + 0.35 * np.stack([smooth, 0.7 * noise + 0.3 * smooth])).float()


CHECKS = (gradient,)
