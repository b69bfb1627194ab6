"""Log-likelihoods of (image, step) items under the policy.

An item of DDPO is a denoising step, with its log-prob. An item of regression is a finished image
with fresh noise, with minus its denoising error. Both are means over the latent's dimensions,
float32. Every call of the denoiser is padded to the sampler's batch, so that sampling and training
see the same bits. On a GPU these depend on the place in the batch too; there a denoising step is
trained at the place where it was sampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpo.devices import moved, places_matter
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import coefficients_of, guided
from ddpo.policies.schedule import StepCoefficients, along_batch, mean_per_item
from ddpo.policies.transition import gaussian_log_prob
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.divergences import output_distance, step_kl
from ddpo.trainer.items import Items, StepItems
from ddpo.trainer.minibatches import Minibatch
from ddpo.trainer.old_outputs import OldOutputs
from ddpo.types import Rollout

__all__ = ["DenoisingLikelihood", "Likelihood", "TransitionLikelihood"]


class Likelihood(Protocol):
    """The log-likelihoods of one kind of items."""

    noise_levels: int | None  # as for `plan_updates`
    images: range  # indices of this process's images in the iteration
    windows: NDArray[np.int64] | None  # as for `plan_updates`

    def places(self, images: int) -> NDArray[np.int64] | None:
        """Places of an iteration's images, as for `plan_updates`."""
        ...

    def calls(self, items: Minibatch) -> list[Minibatch]:
        """The items in parts that `of` takes, one after another."""
        ...

    def prepare(self, plan: Sequence[Minibatch]) -> None:
        """Called before the first update of an iteration, with this process's items.

        A further call, with an item that joins a call of other processes, changes nothing.
        """
        ...

    def of(self, items: Minibatch) -> Items:
        """One part of `calls` under the policy as it is now."""
        ...


class _RolloutItems:
    """The latents and text conditioning that both kinds of items index into.

    Args:
        policy: the policy that is trained.
        rollout: this process's samples.
        config: settings of the run.
        first: index in the iteration of the rollout's first image.
        needs: fields of the items that the algorithm needs, as of `needs_of`.
    """

    windows: NDArray[np.int64] | None = None

    def __init__(
        self,
        policy: Policy,
        rollout: Rollout,
        config: TrainConfig,
        first: int,
        needs: Collection[str] | None,
    ) -> None:
        self.policy = policy
        self.config = config
        self.needs = needs or ()
        self.has_steps = needs is not None
        self.latents = rollout.trajectory.latents
        self.images = range(first, first + len(self.latents))
        texts = list(dict.fromkeys(prompt.text for prompt in rollout.prompts))
        place = {text: number for number, text in enumerate(texts)}
        places = [place[prompt.text] for prompt in rollout.prompts]
        self.text_of_image = torch.tensor(places, device=policy.device)
        # of each text once: the conditioning of an image may be as large as its path
        self.conditioning = policy.encode(texts)
        self.unconditional = policy.encode([""])

    def places(self, images: int) -> NDArray[np.int64] | None:
        """None: any image may have any place in a call."""
        return None

    def calls(self, items: Minibatch) -> list[Minibatch]:
        """The items in order, up to `sample.batch` in each part."""
        return items.batches(self.config.sample.batch)

    def index(self, items: Minibatch) -> tuple[Tensor, Tensor]:
        """Place in the rollout and step of each row of a call, int64 `[batch]`.

        Rows without an item repeat the last item.
        """
        rows = np.full(self.config.sample.batch, len(items) - 1)
        rows[np.arange(len(items)) if items.places is None else items.places] = np.arange(
            len(items)
        )
        device = self.policy.device
        places = torch.from_numpy(items.images[rows] - self.images.start)
        return moved(places, device), moved(torch.from_numpy(items.steps[rows]), device)

    def rows(self, items: Minibatch) -> slice | Tensor:
        """The rows of a call that hold the items, in their order."""
        if items.places is None:
            return slice(len(items))
        return moved(torch.from_numpy(items.places), self.policy.device)

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

    def reference(self, output: Callable[[], Tensor]) -> Tensor | None:
        """The reference policy's `output`, without gradient; None if nothing needs it."""
        if not self.config.optim.kl and "reference_output" not in self.needs:
            return None
        with torch.no_grad(), self.policy.reference():
            return output()

    def image_numbers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Index in the iteration, and number of the prompt, of images of the rollout."""
        return images + self.images.start, self.text_of_image[images]


class TransitionLikelihood(_RolloutItems):
    """log π(x_{t-1} | x_t, c) of the steps that the sampler took.

    Args:
        policy: the policy that is trained.
        rollout: this process's samples.
        coefficients: coefficients of the sampler's steps, on the policy's device.
        config: settings of the run.
        first: index in the iteration of the rollout's first image.
        needs: fields of the items that the algorithm needs, as of `needs_of`.
        windows: steps with noise of each image of the iteration, as of `window_steps`; None: all.
    """

    noise_levels: int | None = None

    def __init__(
        self,
        policy: Policy,
        rollout: Rollout,
        coefficients: StepCoefficients,
        config: TrainConfig,
        first: int = 0,
        needs: Collection[str] | None = None,
        windows: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(policy, rollout, config, first, needs)
        self.coefficients = coefficients
        self.old_log_probs = rollout.trajectory.log_probs
        self.windows = windows
        self._prepared = False
        self._old_outputs: OldOutputs | None = None

    def places(self, images: int) -> NDArray[np.int64] | None:
        """The place in its batch at which each image was sampled, if the device's bits need it."""
        if not places_matter(self.policy.device):
            return None
        return np.arange(images) % len(self.images) % self.config.sample.batch

    def calls(self, items: Minibatch) -> list[Minibatch]:
        """The items in parts of up to `sample.batch`, each at its place if places matter."""
        if not places_matter(self.policy.device):
            return super().calls(items)
        return items.calls((items.images - self.images.start) % self.config.sample.batch)

    def prepare(self, plan: Sequence[Minibatch]) -> None:
        """Computes what the sampler did not keep, with the policy that sampled.

        These are the old log-probs where sampling is guided and training is not, and the old
        outputs if the algorithm needs them. They are not found from the noise, since latents are
        rounded: computed by the same call, they are those of the first update to the bit.
        """
        again = self.config.training_guidance != self.config.sample.guidance
        keep = "old_output" in self.needs
        if not (again or keep):
            return
        first = not self._prepared
        self._prepared = True
        if first and again:
            self.old_log_probs = torch.full_like(self.old_log_probs, torch.nan)
        if first and keep:
            self._old_outputs = OldOutputs(
                items=sum(map(len, plan)),
                images=len(self.latents),
                steps=self.config.sample.steps,
                shape=self.policy.latent_shape,
                device=self.policy.device,
            )
        for part in (part for items in plan for part in self.calls(items)):
            images, steps = self.index(part)
            with torch.no_grad():
                output = self._output(images, steps)
                if first and again:
                    means = self._means(output, images, steps)
                    self.old_log_probs[images, steps] = self._log_probs(means, images, steps)
            if first and self._old_outputs is not None:
                rows = self.rows(part)
                self._old_outputs.keep(output[rows], images[rows], steps[rows])

    def of(self, items: Minibatch) -> Items:
        """The steps, with the KL to the reference policy if `optim.kl` is not 0."""
        rows = self.rows(items)
        images, steps = self.index(items)
        output = self._output(images, steps)
        means = self._means(output, images, steps)
        new_log_probs = self._log_probs(means, images, steps)[rows]
        old_log_probs = self.old_log_probs[images, steps][rows]
        reference = self.reference(lambda: self._output(images, steps))
        kl = None
        if self.config.optim.kl and reference is not None:
            kl = self._kl(output, means, reference, images, steps)[rows]
        image, group = self.image_numbers(images[rows])
        return Items(
            new_log_probs=new_log_probs,
            old_log_probs=old_log_probs,
            output=output[rows],
            index=steps[rows],
            image=image,
            group=group,
            step=self._step_items(steps[rows]) if self.has_steps else None,
            kl=kl,
            asked=self._asked(
                images[rows], steps[rows], None if reference is None else reference[rows]
            ),
        )

    def _output(self, images: Tensor, steps: Tensor) -> Tensor:
        """The denoiser's output at the steps, `[batch, …]`."""
        x_t = self.latents[images, steps]
        return self.predict(x_t, self.coefficients.timesteps[steps], images)

    def _means(self, output: Tensor, images: Tensor, steps: Tensor) -> Tensor:
        """Means of the Gaussian steps, `[batch, …]`."""
        x_t = self.latents[images, steps]
        return self.policy.schedule.mean(output, x_t, steps, self.coefficients)

    def _log_probs(self, means: Tensor, images: Tensor, steps: Tensor) -> Tensor:
        """Log-probs of the next latents, `[batch]`."""
        next_latents = self.latents[images, steps + 1]
        return gaussian_log_prob(next_latents, means, self.coefficients.std[steps])

    def _kl(
        self, output: Tensor, means: Tensor, reference: Tensor, images: Tensor, steps: Tensor
    ) -> Tensor:
        """KL to the reference policy in the unit of `optim.kl_of`, `[batch]`."""
        unit = self.config.optim.kl_of
        if unit == "output":
            return output_distance(output, reference)
        std = self.coefficients.std[steps]
        kl = step_kl(means, self._means(reference, images, steps), std)
        return kl if unit == "step" else kl * self._changes()[steps]

    def _step_items(self, steps: Tensor) -> StepItems:
        """The coefficients of steps `[items]`."""
        table = self.coefficients
        return StepItems(table.a[steps], table.b[steps], table.std[steps], self._changes()[steps])

    def _changes(self) -> Tensor:
        """|b| of every step without noise, float32 `[steps]`."""
        return coefficients_of(self.policy, self.config.sample, eta=0.0).b.abs()

    def _asked(self, images: Tensor, steps: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
        """The fields that the algorithm needs, each `[items, …]`."""
        found = {}
        if self._old_outputs is not None:
            found["old_output"] = self._old_outputs.of(images, steps)
        if "reference_output" in self.needs and reference is not None:
            found["reference_output"] = reference
        if "target" in self.needs:
            x_t = self.latents[images, steps].float()
            after = self.latents[images, steps + 1].float()
            a, b = (along_batch(c[steps], x_t) for c in (self.coefficients.a, self.coefficients.b))
            found["target"] = (after - a * x_t) / b
        return found


class DenoisingLikelihood(_RolloutItems):
    """-‖denoiser's output - target‖² of finished images x_0, noised again to the item's level.

    The noise of an item depends on (seed, iteration, image, draw) alone.

    Args:
        policy: the policy that is trained.
        rollout: this process's samples.
        config: settings of the run.
        iteration: 1-based iteration number.
        first: index in the iteration of the rollout's first image.
        needs: fields of the items that the algorithm needs, as of `needs_of`.
    """

    def __init__(
        self,
        policy: Policy,
        rollout: Rollout,
        config: TrainConfig,
        iteration: int,
        first: int = 0,
        needs: Collection[str] | None = None,
    ) -> None:
        super().__init__(policy, rollout, config, first, needs)
        self.noise_levels: int | None = policy.schedule.levels
        self.iteration = iteration

    def prepare(self, plan: Sequence[Minibatch]) -> None:
        """Does nothing: there are no old log-probs."""

    def of(self, items: Minibatch) -> Items:
        """Finished images with noise, with minus their mean squared denoising error.

        The KL, if `optim.kl` is not 0, is in the unit "output": a noised image has no step.
        """
        count = len(items)
        images, levels = self.index(items)
        x_0 = self.latents[images, -1].float()
        keys = zip(items.images.tolist(), items.draws.tolist(), strict=True)
        noise = torch.stack([self._noise(image, draw) for image, draw in keys])
        noise = torch.cat([noise, noise[-1:].expand(len(images) - len(noise), *noise.shape[1:])])
        noise = moved(noise, x_0.device)
        schedule = self.policy.schedule
        x_t = schedule.noised(x_0, noise, levels)
        timesteps = schedule.timestep(levels)
        output = self.predict(x_t, timesteps, images)
        target = schedule.target(x_0, noise, levels)
        asked = {"target": target[:count]} if "target" in self.needs else {}
        kl = None
        reference = self.reference(lambda: self.predict(x_t, timesteps, images))
        if reference is not None and "reference_output" in self.needs:
            asked["reference_output"] = reference[:count]
        if reference is not None and self.config.optim.kl:
            kl = output_distance(output, reference)[:count]
        image, group = self.image_numbers(images[:count])
        return Items(
            new_log_probs=-mean_per_item((output - target) ** 2)[:count],
            old_log_probs=None,
            output=output[:count],
            index=levels[:count],
            image=image,
            group=group,
            step=None,
            kl=kl,
            asked=asked,
        )

    def _noise(self, image: int, draw: int) -> Tensor:
        """Standard normal noise of an item, on the CPU."""
        key = f"{self.config.seed}/fit/{self.iteration}/{image}/{draw}"
        digest = hashlib.sha256(key.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.randn(self.policy.latent_shape, generator=generator)
