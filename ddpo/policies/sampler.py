"""The sampler: the loop over transitions, with one random generator per picture.

The noise of a picture depends only on (seed, prompt, index): not on the batch that it is in, its place there, or the number of
processes. Sampling and training call the denoiser in the same batch shape, so that both see the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpo.devices import moved
from ddpo.errors import ConfigError
from ddpo.policies.policy import Policy
from ddpo.policies.transition import ddim_mean, gaussian_log_prob
from ddpo.types import ImageBatch, Prompt, Trajectory

__all__ = [
    "SampleKey",
    "SamplerSettings",
    "guided",
    "sample_images",
    "sample_noise",
    "sample_trajectory",
]


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How pictures are sampled.

    Raises:
        ConfigError: a value out of range.
    """

    steps: int = 20
    guidance: float = (
        3.0  # classifier-free guidance scale w: ε_u + w (ε_c - ε_u); 1 means none and costs half
    )
    eta: float = 1.0
    batch: int = 32  # pictures per call of the denoiser

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ConfigError(
                f"steps and batch must be at least 1, got {self.steps} and {self.batch}"
            )
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta must be in [0, 1], got {self.eta}")
        if self.guidance < 1:
            raise ConfigError(f"guidance must be at least 1 (no guidance), got {self.guidance}")


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which picture: the `index`-th of `prompt`."""

    prompt: Prompt
    index: int


def sample_noise(key: SampleKey, seed: int, steps: int, shape: tuple[int, int, int]) -> Tensor:
    """All the noise of one picture: float32 `[steps + 1, channel, height, width]`, x_T first. Drawn on the CPU, the same everywhere."""
    digest = hashlib.sha256(f"{seed}/{key.prompt.id}/{key.index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn((steps + 1, *shape), generator=generator)


def guided(
    policy: Policy,
    latents: Tensor,
    timesteps: Tensor,
    conditioning: Tensor,
    unconditional: Tensor,
    guidance: float,
) -> Tensor:
    """The denoiser's output with classifier-free guidance, in one call of twice the batch; without, in one of the batch itself."""
    if guidance == 1.0:
        return policy.predict(latents, timesteps, conditioning)
    both = policy.predict(
        torch.cat([latents, latents]),
        torch.cat([timesteps, timesteps]),
        torch.cat([unconditional.expand_as(conditioning), conditioning]),
    )
    without, with_prompt = both.chunk(2)
    return without + guidance * (with_prompt - without)


@torch.no_grad()
def sample_trajectory(
    policy: Policy,
    keys: Sequence[SampleKey],
    settings: SamplerSettings,
    seed: int,
    texts: Sequence[str] | None = None,
) -> Trajectory:
    """Denoises one batch and keeps its whole path.

    Each x_{t-1} is rounded to its storage dtype *before* its log-prob is taken, so that scoring the stored path again under the
    same policy gives the same numbers. The batch is padded to `settings.batch` pictures, so that the denoiser is always called in
    one shape; the padding is dropped from what is returned.

    Args:
        policy: The denoiser.
        keys: Which pictures, at most `settings.batch`; each decides its own noise.
        settings: Steps, guidance, eta and batch size.
        seed: Of the noise.
        texts: What the pictures are asked for in place of their keys' prompts: another prompt on the same noise (the swap test).

    Raises:
        ValueError: `texts` has another length than `keys`.
    """
    asked = [key.prompt.text for key in keys] if texts is None else list(texts)
    if len(asked) != len(keys):
        raise ValueError(f"{len(asked)} texts for {len(keys)} keys")
    padding = settings.batch - len(keys)
    padded, asked = [*keys, *[keys[-1]] * padding], [*asked, *[asked[-1]] * padding]
    device = policy.device
    coefficients = policy.schedule.coefficients_on(device, settings.steps, settings.eta)
    noise = moved(
        torch.stack(
            [sample_noise(key, seed, settings.steps, policy.latent_shape) for key in padded]
        ),
        device,
    )
    conditioning, unconditional = policy.encode(asked), policy.encode([""])
    x_t = noise[:, 0].to(policy.storage_dtype)
    latents, log_probs = [x_t], []
    for index in range(settings.steps):
        step = torch.full((len(padded),), index, device=device)
        output = guided(
            policy,
            x_t,
            coefficients.timesteps[step],
            conditioning,
            unconditional,
            settings.guidance,
        )
        mean = ddim_mean(output, x_t, step, coefficients, policy.schedule.prediction)
        x_t = (mean + coefficients.noise_std[index] * noise[:, index + 1]).to(policy.storage_dtype)
        latents.append(x_t)
        log_probs.append(gaussian_log_prob(x_t, mean, coefficients.std[step]))
    kept = len(keys)
    return Trajectory(torch.stack(latents, 1)[:kept], torch.stack(log_probs, 1)[:kept])


@torch.no_grad()
def sample_images(
    policy: Policy, keys: Sequence[SampleKey], settings: SamplerSettings, seed: int
) -> Iterator[ImageBatch]:
    """Pictures for `keys`, in order, in batches of `settings.batch`."""
    for start in range(0, len(keys), settings.batch):
        part = keys[start : start + settings.batch]
        trajectory = sample_trajectory(policy, part, settings, seed)
        yield ImageBatch(
            policy.decode(trajectory.latents[:, -1]), tuple(key.prompt for key in part)
        )
