"""DDPO-SF: one update per rollout with the score-function (REINFORCE) estimator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ddpo.errors import ConfigError
from ddpo.trainer.algorithms.weighing import AdvantageWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import weighted_likelihood

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class DdpoSf(AdvantageWeights):
    """Denoising diffusion policy optimisation with the score-function estimator.

    Source: arXiv 2305.13301, section 4.3.
    """

    summary: str = "score function, one update per rollout"
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"optim": {"updates": 1}})
    likelihood: Literal["transition"] = "transition"

    def check(self, config: TrainConfig) -> None:
        """Checks that there is one update, since a second one would be biased.

        The estimator is exact only for the policy that sampled.

        Raises:
            ConfigError: there are several.
        """
        if config.optim.updates != 1 or config.optim.epochs != 1:
            raise ConfigError(
                f"ddpo_sf makes one update per rollout: set optim.updates=1 and optim.epochs=1 "
                f"(they are {config.optim.updates} and {config.optim.epochs})"
            )

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """-A log π."""
        return weighted_likelihood(log_likelihoods, weights)


DDPO_SF = DdpoSf()
