"""Log-likelihoods of (image, step) items under the policy.

An item of DDPO is a denoising step, with its log-prob. An item of regression is a finished image
with fresh noise, with minus its denoising error. Both are means over the latent's dimensions,
float32. Every call of the denoiser is padded to the sampler's batch, so that sampling and training
see the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ddpo.devices import moved
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import guided
from ddpo.policies.schedule import StepCoefficients, along_batch, mean_per_item
from ddpo.policies.transition import gaussian_log_prob
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.minibatches import Minibatch
from ddpo.types import Rollout

__all__ = ["DenoisingLikelihood", "ItemLikelihoods", "Likelihood", "TransitionLikelihood"]


@dataclass(frozen=True, slots=True)
class ItemLikelihoods:
    """Log-likelihoods of up to `batch` items, each float32 `[items]`.

    Attributes:
        new_log_probs: under the policy as it is now, with gradient.
        old_log_probs: under the policy that sampled; None in regression.
        kl: KL(policy || reference policy), a mean per latent dimension, with gradient; None if
            `optim.kl` is 0.
    """

    new_log_probs: Tensor
    old_log_probs: Tensor | None
    kl: Tensor | None


class Likelihood(Protocol):
    """The log-likelihoods of one kind of items."""

    noise_levels: int | None  # as for `plan_updates`
    images: range  # indices of this process's images in the iteration

    def prepare(self, plan: Iterable[Minibatch]) -> None:
        """Called once before the first update of an iteration, with this process's items."""
        ...

    def of(self, items: Minibatch) -> ItemLikelihoods:
        """The log-likelihoods of up to `sample.batch` items."""
        ...


class _RolloutItems:
    """The latents and text conditioning that both kinds of items index into.

    Args:
        policy: the policy that is trained.
        rollout: this process's samples.
        config: settings of the run.
        first: index in the iteration of the rollout's first image.
    """

    def __init__(self, policy: Policy, rollout: Rollout, config: TrainConfig, first: int) -> None:
        self.policy = policy
        self.config = config
        self.latents = rollout.trajectory.latents
        self.images = range(first, first + len(self.latents))
        texts = list(dict.fromkeys(prompt.text for prompt in rollout.prompts))
        place = {text: number for number, text in enumerate(texts)}
        places = [place[prompt.text] for prompt in rollout.prompts]
        self.text_of_image = torch.tensor(places, device=policy.device)
        # of each text once: the conditioning of an image may be as large as its path
        self.conditioning = policy.encode(texts)
        self.unconditional = policy.encode([""])

    def index(self, items: Minibatch) -> tuple[Tensor, Tensor]:
        """Place in the rollout and step of each item, int64 `[batch]`, padded with the last one."""
        missing = self.config.sample.batch - len(items)
        images, steps = (
            np.concatenate([values, np.repeat(values[-1:], missing)])
            for values in (items.images, items.steps)
        )
        device = self.policy.device
        places = torch.from_numpy(images - self.images.start)
        return moved(places, device), moved(torch.from_numpy(steps), device)

    def predict(self, x_t: Tensor, timesteps: Tensor, images: Tensor) -> Tensor:
        """The denoiser's output, guided if training is."""
        return guided(
            self.policy,
            x_t,
            timesteps,
            self.conditioning[self.text_of_image[images]],
            self.unconditional,
            self.config.training_guidance,
        )


class TransitionLikelihood(_RolloutItems):
    """log π(x_{t-1} | x_t, c) of the steps that the sampler took.

    Args:
        policy: the policy that is trained.
        rollout: this process's samples.
        coefficients: coefficients of the sampler's steps, on the policy's device.
        config: settings of the run.
        first: index in the iteration of the rollout's first image.
    """

    noise_levels: int | None = None

    def __init__(
        self,
        policy: Policy,
        rollout: Rollout,
        coefficients: StepCoefficients,
        config: TrainConfig,
        first: int = 0,
    ) -> None:
        super().__init__(policy, rollout, config, first)
        self.coefficients = coefficients
        self.old_log_probs = rollout.trajectory.log_probs

    def prepare(self, plan: Iterable[Minibatch]) -> None:
        """Computes the old log-probs again where training predicts otherwise than sampling did.

        That is so when sampling is guided and training is not.
        """
        if self.config.training_guidance == self.config.sample.guidance:
            return
        self.old_log_probs = torch.full_like(self.old_log_probs, torch.nan)
        for items in plan:
            for part in items.batches(self.config.sample.batch):
                images, steps = self.index(part)
                with torch.no_grad():
                    means = self._means(images, steps)
                    self.old_log_probs[images, steps] = self._log_probs(means, images, steps)

    def of(self, items: Minibatch) -> ItemLikelihoods:
        """Log-probs of the steps, and the KL to the reference policy if `optim.kl` is not 0."""
        count = len(items)
        images, steps = self.index(items)
        means = self._means(images, steps)
        new_log_probs = self._log_probs(means, images, steps)[:count]
        old_log_probs = self.old_log_probs[images, steps][:count]
        kl = self._kl(means, images, steps)[:count] if self.config.optim.kl else None
        return ItemLikelihoods(new_log_probs, old_log_probs, kl)

    def _means(self, images: Tensor, steps: Tensor) -> Tensor:
        """Means of the Gaussian steps, `[batch, …]`."""
        x_t = self.latents[images, steps]
        output = self.predict(x_t, self.coefficients.timesteps[steps], images)
        return self.policy.schedule.mean(output, x_t, steps, self.coefficients)

    def _log_probs(self, means: Tensor, images: Tensor, steps: Tensor) -> Tensor:
        """Log-probs of the next latents, `[batch]`."""
        next_latents = self.latents[images, steps + 1]
        return gaussian_log_prob(next_latents, means, self.coefficients.std[steps])

    def _kl(self, means: Tensor, images: Tensor, steps: Tensor) -> Tensor:
        """(μ - μ_ref)² / (2 σ²), a mean over the dimensions, `[batch]`.

        It is exact, since both steps are Gaussians of the same σ.
        """
        with torch.no_grad(), self.policy.reference():
            reference = self._means(images, steps)
        std = along_batch(self.coefficients.std[steps], means)
        return mean_per_item(0.5 * ((means - reference) / std) ** 2)


class DenoisingLikelihood(_RolloutItems):
    """-‖denoiser's output - target‖² of finished images x_0, noised again to the item's level.

    The noise of an item depends on (seed, iteration, image, draw) alone.

    Args:
        policy: the policy that is trained.
        rollout: this process's samples.
        config: settings of the run.
        iteration: 1-based iteration number.
        first: index in the iteration of the rollout's first image.
    """

    def __init__(
        self, policy: Policy, rollout: Rollout, config: TrainConfig, iteration: int, first: int = 0
    ) -> None:
        super().__init__(policy, rollout, config, first)
        self.noise_levels: int | None = policy.schedule.levels
        self.iteration = iteration

    def prepare(self, plan: Iterable[Minibatch]) -> None:
        """Does nothing: there are no old log-probs."""

    def of(self, items: Minibatch) -> ItemLikelihoods:
        """Minus the mean squared denoising error."""
        images, levels = self.index(items)
        x_0 = self.latents[images, -1].float()
        keys = zip(items.images.tolist(), items.draws.tolist(), strict=True)
        noise = torch.stack([self._noise(image, draw) for image, draw in keys])
        noise = torch.cat([noise, noise[-1:].expand(len(images) - len(noise), *noise.shape[1:])])
        noise = moved(noise, x_0.device)
        schedule = self.policy.schedule
        x_t = schedule.noised(x_0, noise, levels)
        output = self.predict(x_t, schedule.timestep(levels), images)
        error = (output - schedule.target(x_0, noise, levels)) ** 2
        return ItemLikelihoods(-mean_per_item(error)[: len(items)], None, None)

    def _noise(self, image: int, draw: int) -> Tensor:
        """Standard normal noise of an item, on the CPU."""
        key = f"{self.config.seed}/fit/{self.iteration}/{image}/{draw}"
        digest = hashlib.sha256(key.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.randn(self.policy.latent_shape, generator=generator)
