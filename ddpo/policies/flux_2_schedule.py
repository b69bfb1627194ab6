"""The noise levels of FLUX.2, whose shift depends on the size of the image and on the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ddpo.policies.flow_schedule import FlowSchedule, Grid

__all__ = ["Flux2Schedule", "flux_2_shift"]

AT_200_STEPS: Final = (0.00016927, 0.45666666)
AT_10_STEPS: Final = (8.73809524e-05, 1.89833333)
"""Slope and intercept of μ in tokens, at two numbers of steps."""
MANY_TOKENS: Final = 4300
"""Tokens above which μ does not depend on the steps."""
USUAL_STEPS: Final = 50
"""Steps of the base models in diffusers' pipeline."""


def flux_2_shift(tokens: int, steps: int) -> float:
    """The shift e^μ of FLUX.2 for an image of so many tokens and so many steps.

    μ is a straight line in the steps, through its values at 10 and at 200 steps. These are straight
    lines in the tokens.

    Source: `compute_empirical_mu` in diffusers 0.42, from black-forest-labs/flux2.
    """
    many = AT_200_STEPS[0] * tokens + AT_200_STEPS[1]
    if tokens > MANY_TOKENS:
        return math.exp(many)
    few = AT_10_STEPS[0] * tokens + AT_10_STEPS[1]
    slope = (many - few) / 190
    return math.exp(slope * steps + many - 200 * slope)


@dataclass(frozen=True, slots=True)
class Flux2Schedule(FlowSchedule):
    """The schedule of FLUX.2 for images of one size.

    Args:
        tokens: Tokens of an image, of 16 × 16 pixels each.

    The other arguments are those of `FlowSchedule`. Its `shift` is that of 50 steps, at which
    denoising losses add noise.
    """

    tokens: int = 0

    @classmethod
    def of(cls, tokens: int, grid: Grid) -> Flux2Schedule:
        """The schedule for images of so many tokens."""
        shift = flux_2_shift(tokens, USUAL_STEPS)
        return cls(shift, grid, shifted_once=True, tokens=tokens)

    def shift_of(self, steps: int) -> float:
        """The shift of a sampler run of so many steps."""
        return flux_2_shift(self.tokens, steps)
