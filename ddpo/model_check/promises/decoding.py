"""The promise that decoded images are canonical pixels."""

from __future__ import annotations

from typing import Final

import torch

from ddpo.model_check.model_under_test import ModelUnderTest, random_latents
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["decoding"]

TOLERANCE: Final = 1e-3  # a quarter of a level of 8 bits


@torch.no_grad()
def decoding(tested: ModelUnderTest) -> str | None:
    """`decode` gives finite float32 `[batch, 3, height, width]` in [0, 1], each item for itself."""
    policy = tested.policy
    latents = random_latents(policy, 2, seed=6)
    for scale in (1, 20):
        pixels = policy.decode(scale * latents)
        if pixels.dtype != torch.float32:
            raise CheckFailed(f"decode gives {pixels.dtype}, not float32")
        if pixels.ndim != 4 or len(pixels) != 2 or pixels.shape[1] != 3:
            raise CheckFailed(f"decode gives {list(pixels.shape)} for 2 images")
        if not bool(pixels.isfinite().all()):
            raise CheckFailed("decode gives pixels that are not finite")
        low, high = (float(one) for one in pixels.aminmax())
        if low < 0 or high > 1:
            raise CheckFailed(f"decode gives pixels from {low:.3g} to {high:.3g}, outside [0, 1]")
    away = max(
        float((policy.decode(scale * latents[at : at + 1])[0] - pixels[at]).abs().max())
        for at in range(2)
    )
    if away > TOLERANCE:
        raise CheckFailed(f"an image decoded alone differs by {away:.2g} from itself in a batch")
    return f"{pixels.shape[3]}×{pixels.shape[2]} pixels"
