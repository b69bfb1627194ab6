"""The promise that a model can be made and that its predictions fit its latents."""

from __future__ import annotations

import torch

from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["construction"]


def construction(tested: ModelUnderTest) -> str | None:
    """It can be made; `predict` gives finite float32 values of the shape of the latents."""
    policy = tested.policy
    shape = policy.latent_shape
    whole = isinstance(shape, tuple) and all(type(size) is int and size > 0 for size in shape)
    if not (whole and shape):
        raise CheckFailed(f"latent_shape is {shape!r}; it must be a tuple of sizes above 0")
    latents, times, conditioning = tested.inputs(policy)
    with torch.no_grad():
        output = policy.predict(latents, times, conditioning)
    if output.dtype != torch.float32:
        raise CheckFailed(f"predict gives {output.dtype}; convert it with `.float()`")
    if output.shape != latents.shape:
        raise CheckFailed(f"predict gives {list(output.shape)} for {list(latents.shape)}")
    if not bool(output.isfinite().all()):
        raise CheckFailed("predict gives values that are not finite")
    return f"latents {'×'.join(map(str, shape))}"
