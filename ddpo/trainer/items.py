"""The items of one call of the denoiser, with all that a loss may read of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ddpo.errors import UserCodeFailure
from ddpo.policies.schedule import along_batch, mean_per_item

__all__ = ["Items", "StepItems"]


@dataclass(frozen=True, slots=True)
class StepItems:
    """The coefficients of the items' denoising steps, each float32 `[items]`.

    A step is x' = a · x + b · f + k · z in the denoiser's output f, with z ~ N(0, 1).

    Attributes:
        a: factors of the noisy latents.
        b: factors of the denoiser's output.
        k: standard deviations of the noise, at least `STD_FLOOR`.
        change: |b| of the same step without noise. For a flow it is the step's time |Δ|.
    """

    a: Tensor
    b: Tensor
    k: Tensor
    change: Tensor


@dataclass(frozen=True, slots=True)
class Items:
    """Up to `sample.batch` items.

    Attributes:
        new_log_probs: log-likelihoods under the policy as it is now, float32 `[items]`, with
            gradient.
        old_log_probs: log-probs under the policy that sampled, float32 `[items]`; None for the
            kind "denoising".
        output: the denoiser's output now, float32 `[items, …]`, with gradient.
        index: index of the denoising step, or the noise level, int64 `[items]`.
        image: index of the image in the iteration, int64 `[items]`.
        group: number of the image's prompt, the same for all images of a prompt, int64 `[items]`.
        step: coefficients of the steps; None for the kind "denoising", and for an algorithm
            without `item_loss`.
        kl: KL to the reference policy in the unit of `optim.kl_of`, with gradient; None if
            `optim.kl` is 0.
        asked: fields of `ItemAlgorithm.needs`, float32 `[items, …]`.
    """

    new_log_probs: Tensor
    old_log_probs: Tensor | None
    output: Tensor
    index: Tensor
    image: Tensor
    group: Tensor
    step: StepItems | None
    kl: Tensor | None
    asked: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.new_log_probs)

    @property
    def old_output(self) -> Tensor:
        """The output of the policy that sampled, without gradient."""
        return self._asked("old_output")

    @property
    def reference_output(self) -> Tensor:
        """The output of the reference policy, without gradient."""
        return self._asked("reference_output")

    @property
    def target(self) -> Tensor:
        """The output that leads to what was sampled: (x' - a · x) / b, or the denoising target."""
        return self._asked("target")

    def log_ratio(self) -> Tensor:
        """Log-ratio ln π / π_old, `[items]`; 0 with gradient where no step was sampled."""
        old = self.old_log_probs
        return self.new_log_probs - (self.new_log_probs.detach() if old is None else old)

    def coefficients(self) -> StepItems:
        """The coefficients of the steps.

        Raises:
            UserCodeFailure: The items are of the kind "denoising".
        """
        if self.step is None:
            raise UserCodeFailure(
                "items of the kind 'denoising' have no steps: set likelihood = 'transition'"
            )
        return self.step

    def mean_shift(self) -> Tensor:
        """Shift b (f - f_old) of the steps' means since sampling, `[items, …]`."""
        b = self.coefficients().b
        return along_batch(b, self.output) * (self.output - self.old_output)

    def noise(self) -> Tensor:
        """The noise z of the sampled steps, `[items, …]`: (x' - a · x - b · f_old) / k."""
        step = self.coefficients()
        return along_batch(step.b / step.k, self.output) * (self.target - self.old_output)

    def divergence(self) -> Tensor:
        """KL of the steps from those of the policy that sampled, a mean per dimension, `[items]`.

        It is b² · mean((f - f_old)²) / (2 k²), exact since both steps have the same k.
        """
        return mean_per_item(self.mean_shift() ** 2) / (2 * self.coefficients().k ** 2)

    def _asked(self, name: str) -> Tensor:
        """A field that is there only for an algorithm with its name in `needs`.

        Raises:
            UserCodeFailure: It is not.
        """
        if name not in self.asked:
            raise UserCodeFailure(f"the items have no {name}: add it to the algorithm's `needs`")
        return self.asked[name]
