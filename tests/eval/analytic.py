"""A diffusion model in closed form, and two rewards and three splits to evaluate it with.

Latents are N(m(prompt), s²), so the best denoiser is a formula, and "training" is a shift of m.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from ddpo.eval.inputs.splits import Split
from ddpo.images import to_uint8
from ddpo.policies.sampler import SamplerSettings
from ddpo.policies.transition import NoiseSchedule
from ddpo.rewards.card import RewardCard
from ddpo.types import ImageBatch, Prompt, RewardOutput

SPREAD = 0.5
SETTINGS = SamplerSettings(steps=4, guidance=1.0, eta=1.0, batch=4)
EVIL = '<script>alert("x")</script> & a "cat"'


class AnalyticPolicy:
    """Predicts ε = √(1-ᾱ) (x - √ᾱ m) / (ᾱ s² + 1 - ᾱ), exact for Gaussian latents.

    `shift` is what "training" added to m.
    """

    model = "analytic"
    latent_shape = (3, 8, 8)
    device = torch.device("cpu")
    storage_dtype = torch.float32

    def __init__(self, shift: float) -> None:
        betas = torch.linspace(1e-3, 2e-2, 1000, dtype=torch.float64)
        self.schedule = NoiseSchedule((1 - betas).cumprod(0), 1.0, "epsilon", "leading", 0)
        self.shift = Parameter(torch.tensor(float(shift)))
        self.tuned = True
        self.calls = 0
        self.shapes: set[tuple[int, ...]] = set()  # in which it was called

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Three numbers per text, from its hash: the mean colour."""
        digests = [hashlib.sha256(text.encode()).digest()[:3] for text in texts]
        return torch.tensor([[[byte / 127.5 - 1 for byte in digest]] for digest in digests])

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        self.calls += 1
        self.shapes.add(tuple(latents.shape))
        alpha = self.schedule.alphas_cumprod[timesteps].float().view(-1, 1, 1, 1)
        mean = conditioning[:, 0, :, None, None] + (self.shift.detach() if self.tuned else 0.0)
        return (
            (1 - alpha).sqrt() * (latents - alpha.sqrt() * mean) / (alpha * SPREAD**2 + 1 - alpha)
        )

    def decode(self, latents: Tensor) -> Tensor:
        self.shapes.add(tuple(latents.shape))
        return torch.sigmoid(latents).repeat_interleave(4, -1).repeat_interleave(4, -2)

    def trainable_parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "shift", self.shift

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.tuned = False
        try:
            yield
        finally:
            self.tuned = True


class Brightness:
    """Mean grey level 0 … 255; refuses prompts with the word "secret"."""

    card = RewardCard(
        id="brightness",
        version="1",
        summary="mean level",
        load="tests:Brightness",
        family="pixels",
        flaws="<b>white</b>",
        unit="levels",
        inputs=("image", "prompt"),
    )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        levels = to_uint8(batch.pixels).astype(np.float64).mean((1, 2, 3))
        secret = ["secret" in prompt.text for prompt in batch.prompts]
        values = torch.tensor(
            [
                float("nan") if hidden else level
                for hidden, level in zip(secret, levels, strict=True)
            ],
            dtype=torch.float32,
        )
        return RewardOutput(
            values, {}, tuple("not allowed" if hidden else None for hidden in secret)
        )


class Redness:
    """Red minus mean level."""

    card = RewardCard(
        id="redness",
        version="1",
        summary="red",
        load="tests:Redness",
        family="pixels",
        flaws="sees only red",
    )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput((batch.pixels[:, 0] - batch.pixels.mean(1)).mean((1, 2)))


def make_splits() -> list[Split]:
    """Seen, unseen and a user's list with an unscorable and a hostile prompt."""
    seen = tuple(Prompt(f"a {name}") for name in ("cat", "dog", "horse", "monkey", "rabbit"))
    unseen = tuple(Prompt(f"a {name}") for name in ("yak", "otter", "ibex", "toucan"))
    return [
        Split("animals", "seen", seen),
        Split("unseen_animals", "unseen_animals", unseen),
        Split("mine", "external", (Prompt(EVIL), Prompt("a secret"))),
    ]
