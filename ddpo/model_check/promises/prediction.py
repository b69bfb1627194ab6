"""The promise that the prediction for an item does not depend on its batch mates."""

from __future__ import annotations

from typing import Final

import torch

from ddpo.model_check.model_under_test import ModelUnderTest, random_latents
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["prediction_per_item"]

TOLERANCE: Final = 1e-3  # of the largest value, between batches of different sizes


@torch.no_grad()
def prediction_per_item(tested: ModelUnderTest) -> str | None:
    """`predict` gives an item the same bits beside other items, and nearly the same alone."""
    policy = tested.policy
    latents, times, conditioning = tested.inputs(policy)
    output = policy.predict(latents, times, conditioning)
    if not torch.equal(output, policy.predict(latents, times, conditioning)):
        raise CheckFailed("two equal calls give different bits; turn off dropout and noise")
    others = random_latents(policy, len(latents), seed=2)
    others[0] = latents[0]
    places = torch.tensor([0, 2, 2], device=policy.device)
    beside = policy.predict(others, times[places], conditioning[places])
    if not torch.equal(beside[0], output[0]):
        raise CheckFailed("the bits of an item change with the other items of its batch")
    largest = 0.0
    for place in range(len(latents)):
        one = slice(place, place + 1)
        alone = policy.predict(latents[one], times[one], conditioning[one])
        largest = max(largest, float((alone - output[one]).abs().max()))
    if largest > TOLERANCE * max(1.0, float(output.abs().max())):
        raise CheckFailed(f"an item alone differs by {largest:.2g} from itself in a batch")
    return f"alone to {largest:.1e}"
