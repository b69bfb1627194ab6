"""DDPO-IS: several updates per rollout, each step weighted by its clipped importance ratio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import clipped_surrogate


@dataclass(frozen=True, slots=True)
class DdpoIs:
    """Denoising diffusion policy optimisation with importance sampling (arXiv 2305.13301, section 4.3)."""

    summary: str = "clipped importance sampling, several updates per rollout"
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def check(self, config: TrainConfig) -> None:
        """Any settings will do."""

    def loss(self, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, config: TrainConfig) -> Tensor:
        """The clipped surrogate."""
        return clipped_surrogate(log_probs, old_log_probs, advantages, config.optim.clip_range)


DDPO_IS = DdpoIs()
