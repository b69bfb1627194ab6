"""The named methods. An algorithm says how rewards become weights, what is made likelier, and by which loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ddpo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.advantages import Floats, PictureWeights, PromptStatistics
    from ddpo.trainer.config import TrainConfig

__all__ = ["Algorithm", "algorithms"]


class Algorithm(Protocol):
    """One method of turning a rollout into updates.

    `likelihood` says what an item of an update is. "transition": a denoising step x_t → x_{t-1} that the sampler took, with its
    log-prob; "denoising": a finished picture x_0 with fresh noise at a random level, with minus its denoising error.
    """

    summary: str
    defaults: Mapping[str, Any]  # settings that a run of this method has unless it says otherwise, as plain nested values
    likelihood: Literal["transition", "denoising"]

    def check(self, config: TrainConfig) -> None:
        """Raises `ConfigError` where the settings contradict the method."""
        ...

    def weigh(self, rewards: Floats, prompt_ids: Sequence[str], statistics: PromptStatistics, config: TrainConfig) -> PictureWeights:
        """One weight per picture from rewards `[batch]`, NaN where unscorable; may change the running statistics."""
        ...

    def loss(self, log_likelihoods: Tensor, old_log_likelihoods: Tensor, weights: Tensor, config: TrainConfig) -> Tensor:
        """One loss per item, `[items]`; the tensors are float32 `[items]`. The old ones are those of the policy that sampled."""
        ...


algorithms: Registry[Algorithm] = Registry(
    "algorithm",
    "ddpo.algorithms",
    None,
    {
        "ddpo_is": "ddpo.trainer.algorithms.ddpo_is:DDPO_IS",
        "ddpo_sf": "ddpo.trainer.algorithms.ddpo_sf:DDPO_SF",
        "rwr": "ddpo.trainer.algorithms.rwr:RWR",
        "rwr_sparse": "ddpo.trainer.algorithms.rwr_sparse:RWR_SPARSE",
    },
)
"""Built-in algorithms and those of the entry-point group `ddpo.algorithms`; values follow `Algorithm`."""
