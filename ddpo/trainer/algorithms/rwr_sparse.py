"""RWR-sparse: the model is fitted again to the best of its own images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ddpo.trainer.algorithms.rwr import ROUND, check_regression
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import weighted_likelihood
from ddpo.trainer.recipe import merged

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights


@dataclass(frozen=True, slots=True)
class RwrSparse:
    """Reward-weighted regression with sparse weights: the best tenth of each prompt's images.

    Source: arXiv 2305.13301, section 4.2.
    """

    summary: str = (
        "regression on the best tenth of each prompt's images, rounds of collecting and fitting"
    )
    defaults: Mapping[str, Any] = field(
        default_factory=lambda: merged(ROUND, {"optim": {"updates": 1, "epochs": 40}})
    )
    likelihood: Literal["denoising"] = "denoising"

    def check(self, config: TrainConfig) -> None:
        """Checks the settings by `check_regression`."""
        check_regression(config)

    def weigh(
        self,
        rewards: Floats,
        prompt_ids: Sequence[str],
        statistics: PromptStatistics,
        config: TrainConfig,
    ) -> SampleWeights:
        """1 for images that are kept, 0 for the others."""
        from ddpo.trainer.regression import top_weights  # numpy slows a mistyped command

        return top_weights(rewards, prompt_ids, config.regression)

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """The denoising error."""
        return weighted_likelihood(log_likelihoods, weights)


RWR_SPARSE = RwrSparse()
