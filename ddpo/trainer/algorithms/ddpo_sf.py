"""DDPO-SF: one update per rollout with the score-function (REINFORCE) estimator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import score_function


@dataclass(frozen=True, slots=True)
class DdpoSf:
    """Denoising diffusion policy optimisation with the score-function estimator (arXiv 2305.13301, section 4.3)."""

    summary: str = "score function, one update per rollout"
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"optim": {"updates": 1}})

    def check(self, config: TrainConfig) -> None:
        """The estimator is exact for the policy that sampled, so a second update would be biased."""
        if config.optim.updates != 1:
            raise ConfigError(f"ddpo_sf makes one update per rollout: set optim.updates=1 (it is {config.optim.updates})")

    def loss(self, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, config: TrainConfig) -> Tensor:
        """-A log π."""
        return score_function(log_probs, advantages)


DDPO_SF = DdpoSf()
