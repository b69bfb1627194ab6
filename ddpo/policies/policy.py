"""The `Policy` protocol: a denoiser seen as π(x_{t-1} | x_t, c), with its text encoder, decoder and noise schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Parameter

from ddpo.policies.transition import NoiseSchedule

__all__ = ["Policy"]


@runtime_checkable
class Policy(Protocol):
    """What sampling, training and evaluation need of a text-to-image model."""

    model: str  # the id or folder that it was loaded from
    latent_shape: tuple[int, int, int]  # channel, height, width
    schedule: NoiseSchedule
    device: torch.device
    storage_dtype: torch.dtype  # in which latents are kept between steps

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Text conditioning `[batch, tokens, width]`; each distinct text is encoded once and kept."""
        ...

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """The denoiser's output (noise, velocity or x_0, as the schedule says) `[batch, channel, height, width]`, float32."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as canonical pixels: float32 `[batch, 3, height, width]` in [0, 1]."""
        ...

    def trainable_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Names and parameters that reinforcement learning may change."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside this context `predict` is the reference policy: the model as it was before training."""
        ...
