"""A diffusion model of normal latents N(m(prompt), s²), whose best denoiser is a formula.

"Training" shifts m and bends the denoiser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ddpo.policies.transition import NoiseSchedule

SPREAD = 0.5


class GaussianPolicy:
    """A policy that predicts ε = √(1-ᾱ) (x - √ᾱ m) / (ᾱ s² + 1 - ᾱ).

    The tuned policy has m + `shift`, and adds `bend` · x.
    """

    model = "gaussian"
    latent_shape = (3, 4, 4)
    device = torch.device("cpu")
    storage_dtype = torch.float32

    def __init__(self, shift: float = 0.0, bend: float = 0.0, final_alpha: float = 1.0) -> None:
        betas = torch.linspace(1e-3, 2e-2, 1000, dtype=torch.float64)
        self.schedule = NoiseSchedule((1 - betas).cumprod(0), final_alpha, "epsilon", "leading", 0)
        self.shift = shift
        self.bend = bend
        self.tuned = True
        self.shapes: set[int] = set()

    def encode(self, texts: Sequence[str]) -> Tensor:
        digests = [hashlib.sha256(text.encode()).digest()[:3] for text in texts]
        return torch.tensor([[[byte / 127.5 - 1 for byte in digest]] for digest in digests])

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        self.shapes.add(len(latents))
        alpha = self.schedule.alphas_cumprod[timesteps].float().view(-1, 1, 1, 1)
        mean = conditioning[:, 0, :, None, None] + self.tuned * self.shift
        best = (
            (1 - alpha).sqrt() * (latents - alpha.sqrt() * mean) / (alpha * SPREAD**2 + 1 - alpha)
        )
        return best + self.tuned * self.bend * latents

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents)

    def trainable_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return iter(())

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.tuned = False
        try:
            yield
        finally:
            self.tuned = True
