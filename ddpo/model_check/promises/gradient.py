"""The promise that the gradient of the trained weights is that of the prediction."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.policies.policy import TrainablePolicy
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["gradient"]

FIRST_STEP: Final = 0.01  # share of the weights' size by which they are moved both ways
MOST_DOUBLINGS: Final = 4
SHARE: Final = 0.05  # by which slope and difference may disagree beyond rounding
CLEAR: Final = 200  # differences in units of the rounding error that need no longer step
FLOAT32: Final = 2.0**-23
NODES: Final = ((-0.8611363116, 0.3478548451), (-0.3399810436, 0.6521451549))
"""Half of the places and weights of Gauss and Legendre's rule with four points."""


def gradient(tested: ModelUnderTest) -> str | None:
    """The gradient of `predict` agrees with finite differences in a random direction."""
    largest = 0.0
    for kind in tested.kinds:
        line = _Line(tested, tested.adapted(kind))
        step = FIRST_STEP
        for _ in range(MOST_DOUBLINGS):
            difference = line.difference(step)
            expected = line.integral(step)
            if max(abs(difference), abs(expected)) > CLEAR * line.rounding:
                break
            step *= 2
        error = abs(difference - expected)
        scale = max(abs(difference), abs(expected))
        if not error <= SHARE * scale + 4 * line.rounding:
            raise CheckFailed(
                f"with {kind} the gradient says a change of {expected:.5g}, "
                f"and the prediction changes by {difference:.5g}"
            )
        largest = max(largest, error / max(scale, line.rounding))
    return f"agrees to {largest:.1%}"


class _Line:
    """A weighted sum of predictions along a line through the trained weights."""

    def __init__(self, tested: ModelUnderTest, policy: TrainablePolicy) -> None:
        self.policy = policy
        self.inputs = tested.inputs(policy)
        generator = torch.Generator().manual_seed(7)
        weights = torch.randn(self.inputs[0].shape, generator=generator)
        self.weights = weights.to(policy.device) / weights.numel() ** 0.5
        self.start = [(one, one.detach().clone()) for _, one in policy.trainable_parameters()]
        self.towards = [
            (torch.randn(value.shape, generator=generator).to(value)) * value.square().mean().sqrt()
            for _, value in self.start
        ]
        with torch.no_grad():
            self.rounding = FLOAT32 * float((self._output() * self.weights).abs().sum())

    def difference(self, step: float) -> float:
        """The sum at the end of the line minus that at its beginning."""
        ends = []
        for end in (-step, step):
            self._move(end)
            with torch.no_grad():
                ends.append(float((self._output() * self.weights).double().sum()))
        return ends[1] - ends[0]

    def integral(self, step: float) -> float:
        """The same by the gradient along the line."""
        total = 0.0
        for place, share in NODES:
            for end in (-place, place):
                total += share * step * self._slope(end * step)
        return total

    def _slope(self, place: float) -> float:
        self._move(place)
        variables = [parameter for parameter, _ in self.start]
        with torch.enable_grad():
            total = (self._output() * self.weights).sum()
        if not total.requires_grad:
            raise CheckFailed("predict has no gradient: nothing would be learned")
        slopes = torch.autograd.grad(total, variables, allow_unused=True)
        if any(slope is not None and not bool(slope.isfinite().all()) for slope in slopes):
            raise CheckFailed("the gradient has values that are not finite")
        return sum(
            float((slope.double() * towards.double()).sum())
            for slope, towards in zip(slopes, self.towards, strict=True)
            if slope is not None
        )

    @torch.no_grad()
    def _move(self, place: float) -> None:
        for (parameter, start), towards in zip(self.start, self.towards, strict=True):
            parameter.copy_(start + place * towards)

    def _output(self) -> Tensor:
        return self.policy.predict(*self.inputs)
