"""How likely the policy makes the items of an update: the log-prob of a denoising step, or minus the denoising error of a picture.

Both are means over the latent's dimensions, float32. Every call of the denoiser is padded to the sampler's batch, so that sampling and
training see the same bits.
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
from ddpo.policies.transition import (
    StepCoefficients,
    ddim_mean,
    denoising_target,
    gaussian_log_prob,
    noised,
)
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.minibatches import Minibatch
from ddpo.types import Rollout

__all__ = ["DenoisingLikelihood", "ItemLikelihoods", "Likelihood", "TransitionLikelihood"]


@dataclass(frozen=True, slots=True)
class ItemLikelihoods:
    """Of up to `batch` items, each float32 `[items]`."""

    now: Tensor  # under the policy as it is now, with gradient
    old: Tensor | None  # under the policy that sampled; None: there is no such thing
    kl: (
        Tensor | None
    )  # KL(policy || reference policy), a mean per dimension, with gradient; None: not asked for


class Likelihood(Protocol):
    """One kind of items."""

    noise_levels: int | None  # see `plan_updates`
    pictures: range  # which pictures of the iteration it knows: those of this process

    def prepare(self, plan: Iterable[Minibatch]) -> None:
        """Called once before the first update of an iteration."""
        ...

    def of(self, items: Minibatch) -> ItemLikelihoods:
        """The likelihoods of up to `sample.batch` items."""
        ...


class _Items:
    """What both kinds index into, by picture; the first of the rollout is the `first` of the iteration."""

    def __init__(self, policy: Policy, rollout: Rollout, config: TrainConfig, first: int) -> None:
        self.policy, self.config = policy, config
        self.latents = rollout.trajectory.latents
        self.pictures = range(first, first + len(self.latents))
        texts = list(dict.fromkeys(prompt.text for prompt in rollout.prompts))
        place = {text: number for number, text in enumerate(texts)}
        self.asked = torch.tensor(
            [place[prompt.text] for prompt in rollout.prompts], device=policy.device
        )
        self.conditioning = policy.encode(
            texts
        )  # of each text once: that of a picture may be as large as its path
        self.unconditional = policy.encode([""])

    def index(self, items: Minibatch) -> tuple[Tensor, Tensor]:
        """Place in the rollout and step of each item, int64 `[batch]`, padded with the last one."""
        missing = self.config.sample.batch - len(items)
        pictures, steps = (
            np.concatenate([values, np.repeat(values[-1:], missing)])
            for values in (items.pictures, items.steps)
        )
        device = self.policy.device
        return moved(torch.from_numpy(pictures - self.pictures.start), device), moved(
            torch.from_numpy(steps), device
        )

    def predict(self, x_t: Tensor, timesteps: Tensor, pictures: Tensor) -> Tensor:
        """The denoiser's output, guided if training is."""
        return guided(
            self.policy,
            x_t,
            timesteps,
            self.conditioning[self.asked[pictures]],
            self.unconditional,
            self.config.training_guidance,
        )


class TransitionLikelihood(_Items):
    """log π(x_{t-1} | x_t, c) of the steps that the sampler took."""

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
        self.old = rollout.trajectory.log_probs

    def prepare(self, plan: Iterable[Minibatch]) -> None:
        """Where training sees another prediction than sampling (no guidance), the old log-probs are those of that prediction."""
        if self.config.training_guidance == self.config.sample.guidance:
            return
        self.old = torch.full_like(self.old, torch.nan)
        for items in plan:
            for part in items.batches(self.config.sample.batch):
                pictures, steps = self.index(part)
                with torch.no_grad():
                    self.old[pictures, steps] = self._log_probs(
                        self._means(pictures, steps), pictures, steps
                    )

    def of(self, items: Minibatch) -> ItemLikelihoods:
        """Log-probs, and the KL to the reference policy if `optim.kl` asks for it."""
        kept = len(items)
        pictures, steps = self.index(items)
        means = self._means(pictures, steps)
        kl = self._kl(means, pictures, steps)[:kept] if self.config.optim.kl else None
        return ItemLikelihoods(
            self._log_probs(means, pictures, steps)[:kept], self.old[pictures, steps][:kept], kl
        )

    def _means(self, pictures: Tensor, steps: Tensor) -> Tensor:
        x_t = self.latents[pictures, steps]
        output = self.predict(x_t, self.coefficients.timesteps[steps], pictures)
        return ddim_mean(output, x_t, steps, self.coefficients, self.policy.schedule.prediction)

    def _log_probs(self, means: Tensor, pictures: Tensor, steps: Tensor) -> Tensor:
        return gaussian_log_prob(
            self.latents[pictures, steps + 1], means, self.coefficients.std[steps]
        )

    def _kl(self, means: Tensor, pictures: Tensor, steps: Tensor) -> Tensor:
        """(μ - μ_ref)² / (2 σ²), a mean over the dimensions: exact, since both steps are Gaussians of the same σ."""
        with torch.no_grad(), self.policy.reference():
            reference = self._means(pictures, steps)
        std = self.coefficients.std[steps].view(-1, 1, 1, 1)
        return (0.5 * ((means - reference) / std) ** 2).mean((1, 2, 3))


class DenoisingLikelihood(_Items):
    """-‖denoiser's output - target‖² of finished pictures x_0, noised again to the level of the item.

    The noise of an item depends on (seed, iteration, picture, draw) alone.
    """

    def __init__(
        self, policy: Policy, rollout: Rollout, config: TrainConfig, iteration: int, first: int = 0
    ) -> None:
        super().__init__(policy, rollout, config, first)
        self.noise_levels: int | None = len(policy.schedule.alphas_cumprod)
        self.iteration = iteration
        self.alphas = policy.schedule.alphas_cumprod.float().to(policy.device)

    def prepare(self, plan: Iterable[Minibatch]) -> None:
        """Nothing: there are no old ones."""

    def of(self, items: Minibatch) -> ItemLikelihoods:
        """Minus the mean squared denoising error."""
        pictures, levels = self.index(items)
        x_0 = self.latents[pictures, -1].float()
        noise = torch.stack(
            [
                self._noise(p, d)
                for p, d in zip(items.pictures.tolist(), items.draws.tolist(), strict=True)
            ]
        )
        noise = torch.cat([noise, noise[-1:].expand(len(pictures) - len(noise), *noise.shape[1:])])
        noise = moved(noise, x_0.device)
        alpha = self.alphas[levels]
        output = self.predict(noised(x_0, noise, alpha), levels, pictures)
        error = (output - denoising_target(x_0, noise, alpha, self.policy.schedule.prediction)) ** 2
        return ItemLikelihoods(-error.mean((1, 2, 3))[: len(items)], None, None)

    def _noise(self, picture: int, draw: int) -> Tensor:
        digest = hashlib.sha256(
            f"{self.config.seed}/fit/{self.iteration}/{picture}/{draw}".encode()
        ).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.randn(self.policy.latent_shape, generator=generator)
