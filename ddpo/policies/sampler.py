"""The sampler: the loop over denoising transitions, with one random generator per image.

The noise of an image depends only on (seed, prompt, index), not on its batch, its place there or
the number of processes. Sampling and training call the denoiser with the same batch shape, so that
both compute the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpo.devices import moved
from ddpo.errors import ConfigError
from ddpo.policies.conditioning import concatenated, expanded
from ddpo.policies.image_size import OWN_SIZE, Size, checked_size
from ddpo.policies.policy import Policy
from ddpo.policies.schedule import SamplerChoice, Schedule, StepCoefficients, along_batch
from ddpo.policies.transition import gaussian_log_prob
from ddpo.policies.transitions import AUTO, check_eta, check_words
from ddpo.ranges import BATCH, ETA, GUIDANCE, STEPS, check_numbers
from ddpo.types import ImageBatch, Prompt, Trajectory

__all__ = [
    "SampleKey",
    "SamplerSettings",
    "classifier_free",
    "coefficients_of",
    "guided",
    "sample_images",
    "sample_noise",
    "sample_trajectory",
    "schedule_of",
]


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """The settings of the sampler.

    Raises:
        ConfigError: A value is out of range, or a word is unknown.
    """

    steps: Annotated[int, STEPS] = 20
    # Classifier-free guidance scale w of ε_u + w (ε_c - ε_u); 1 is no guidance at half the cost.
    guidance: Annotated[float, GUIDANCE] = 3.0
    eta: Annotated[float, ETA] = 1.0  # of DDIM or of the transition
    batch: Annotated[int, BATCH] = 32  # images per call of the denoiser
    transition: str = AUTO  # kind of the steps; see `ddpo.policies.transitions`
    grid: str = AUTO  # noise levels of a flow model
    size: Size = OWN_SIZE  # height and width in pixels that the policy was given; empty: its own

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size, "size"))
        check_numbers(self)
        check_words(self.transition, self.grid)
        check_eta(self.transition, self.eta)


@dataclass(frozen=True, slots=True)
class SampleKey:
    """The identity of one image: the `index`-th of `prompt`."""

    prompt: Prompt
    index: int


def sample_noise(key: SampleKey, seed: int, steps: int, shape: tuple[int, ...]) -> Tensor:
    """All noise of one image: float32 `[steps + 1, *shape]`, x_T first.

    It is sampled on the CPU, so that it is the same on every machine.
    """
    digest = hashlib.sha256(f"{seed}/{key.prompt.id}/{key.index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn((steps + 1, *shape), generator=generator)


def schedule_of(policy: Policy, settings: SamplerChoice) -> Schedule:
    """The policy's schedule with the chosen transition and grid.

    A schedule with several of them has a method `sampled_by(transition, grid)`, which returns the
    schedule of that sampler.

    Raises:
        ConfigError: The model has no such transition or grid.
    """
    schedule: Schedule = policy.schedule
    words = (settings.transition, settings.grid)
    if words != (AUTO, AUTO):
        choose = getattr(schedule, "sampled_by", None)
        if choose is None:
            raise ConfigError(
                f"the model {policy.model!r} has one sampler of its own: "
                "leave out transition and grid"
            )
        try:
            schedule = choose(*words)
        except ConfigError as error:
            raise ConfigError(f"the model {policy.model!r} {error}") from None
    return schedule


def coefficients_of(
    policy: Policy, settings: SamplerChoice, eta: float | None = None
) -> StepCoefficients:
    """The coefficients of a sampler run on the policy's device.

    Args:
        policy: Denoiser.
        settings: Settings of the run.
        eta: Stochasticity of the steps in place of that of the settings.

    Raises:
        ConfigError: The model has no such transition or grid, or a number is out of range.
    """
    chosen = settings.eta if eta is None else eta
    return schedule_of(policy, settings).coefficients_on(policy.device, settings.steps, chosen)


def guided(
    policy: Policy,
    latents: Tensor,
    timesteps: Tensor,
    conditioning: Any,
    unconditional: Any,
    guidance: float,
) -> Tensor:
    """The denoiser's output with guidance: classifier-free, or by the policy's own `guided`.

    A policy whose guidance is of another kind has a method of this name, with the arguments of
    `classifier_free` other than the policy.
    """
    own = getattr(policy, "guided", None)
    if own is None:
        return classifier_free(policy, latents, timesteps, conditioning, unconditional, guidance)
    output: Tensor = own(latents, timesteps, conditioning, unconditional, guidance)
    return output


def classifier_free(
    policy: Policy,
    latents: Tensor,
    timesteps: Tensor,
    conditioning: Any,
    unconditional: Any,
    guidance: float,
) -> Tensor:
    """The denoiser's output with classifier-free guidance, from one call of twice the batch.

    Without guidance (1.0), the call has the size of the batch.

    Args:
        policy: Denoiser.
        latents: Noisy latents `[batch, …]`.
        timesteps: Timesteps `[batch]`.
        conditioning: Conditioning of the batch, from `policy.encode`.
        unconditional: Conditioning of the empty text, a batch of one.
        guidance: Guidance scale w.
    """
    if guidance == 1.0:
        return policy.predict(latents, timesteps, conditioning)
    both = policy.predict(
        torch.cat([latents, latents]),
        torch.cat([timesteps, timesteps]),
        concatenated([expanded(unconditional, len(latents)), conditioning]),
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
    noisy: NDArray[np.bool_] | None = None,
    branches: int = 1,
) -> Trajectory:
    """Denoises one batch and keeps its whole path.

    Each x_{t-1} is rounded to the storage dtype *before* its log-prob is computed. So the stored
    path has the same log-probs when the same policy computes them again. The batch is padded to
    `settings.batch` images, so that the denoiser always sees one shape; the result has no padding.

    Args:
        policy: Denoiser, text encoder and noise schedule.
        keys: Identities of at most `settings.batch` images; each determines its noise.
        settings: Steps, guidance, eta and batch size.
        seed: Seed of the noise.
        texts: Texts to condition on in place of the prompts of `keys`, for the swap test.
        noisy: True where a step has noise, `[images, steps]`; None: everywhere. The other steps are
            those with η = 0. They have no density, and their log-prob is NaN.
        branches: Images of a prompt, by index, that start from the same initial noise.

    Raises:
        ValueError: `texts` and `keys` differ in length.
    """
    prompts = [key.prompt.text for key in keys] if texts is None else list(texts)
    if len(prompts) != len(keys):
        raise ValueError(f"{len(prompts)} texts for {len(keys)} keys")
    padding = settings.batch - len(keys)
    padded = [*keys, *[keys[-1]] * padding]
    prompts += [prompts[-1]] * padding
    device = policy.device
    coefficients = coefficients_of(policy, settings)
    shape = policy.latent_shape
    samples = torch.stack([_path_noise(key, seed, settings, shape, branches) for key in padded])
    noise = moved(samples, device)
    conditioning = policy.encode(prompts)
    unconditional = policy.encode([""])
    x_t = noise[:, 0].to(policy.storage_dtype)
    latents = [x_t]
    log_probs = []
    rows = torch.arange(settings.steps, device=device).expand(len(padded), -1)
    if noisy is not None:
        still = ~np.concatenate([noisy, np.repeat(noisy[-1:], padding, axis=0)])
        rows = rows + settings.steps * moved(torch.from_numpy(still), device)
        without = coefficients_of(policy, settings, eta=0.0)
        coefficients = coefficients.followed_by(without)
    for index in range(settings.steps):
        step = rows[:, index]
        time = coefficients.timesteps[step]
        output = guided(policy, x_t, time, conditioning, unconditional, settings.guidance)
        mean = policy.schedule.mean(output, x_t, step, coefficients)
        k = along_batch(coefficients.noise_std[step], mean)
        x_t = (mean + k * noise[:, index + 1]).to(policy.storage_dtype)
        latents.append(x_t)
        log_prob = gaussian_log_prob(x_t, mean, coefficients.std[step])
        log_probs.append(log_prob.masked_fill(step >= settings.steps, torch.nan))
    kept = len(keys)
    return Trajectory(torch.stack(latents, 1)[:kept], torch.stack(log_probs, 1)[:kept])


def _path_noise(
    key: SampleKey, seed: int, settings: SamplerSettings, shape: tuple[int, ...], branches: int
) -> Tensor:
    """All noise of one image, as of `sample_noise`, with x_T of the first image of its branches."""
    noise = sample_noise(key, seed, settings.steps, shape)
    first = key.index - key.index % branches
    if first != key.index:
        noise[0] = sample_noise(SampleKey(key.prompt, first), seed, settings.steps, shape)[0]
    return noise


@torch.no_grad()
def sample_images(
    policy: Policy, keys: Sequence[SampleKey], settings: SamplerSettings, seed: int
) -> Iterator[ImageBatch]:
    """The images of `keys`, in order, in batches of `settings.batch`."""
    for start in range(0, len(keys), settings.batch):
        part = keys[start : start + settings.batch]
        trajectory = sample_trajectory(policy, part, settings, seed)
        pixels = policy.decode(trajectory.latents[:, -1])
        yield ImageBatch(pixels, tuple(key.prompt for key in part))
