"""DDPO-IS: several updates per rollout, each step weighted by its clipped importance ratio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ddpo.trainer.algorithms.weighing import AdvantageWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import clipped_surrogate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class DdpoIs(AdvantageWeights):
    """Denoising diffusion policy optimisation with importance sampling.

    Source: arXiv 2305.13301, section 4.3.
    """

    summary: str = "clipped importance sampling, several updates per rollout"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    likelihood: Literal["transition"] = "transition"

    def check(self, config: TrainConfig) -> None:
        """Accepts all settings."""

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """The clipped surrogate loss."""
        return clipped_surrogate(
            log_likelihoods, old_log_likelihoods, weights, config.optim.clip_range
        )


DDPO_IS = DdpoIs()
