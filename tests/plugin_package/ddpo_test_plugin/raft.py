"""RAFT: regression on the best image of each prompt alone (arXiv 2304.06767)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights
from ddpo.trainer.config import TrainConfig


class RaftBest:
    """The best image of each prompt has weight 1, the others 0."""

    summary = "regression on the best image of each prompt"
    defaults: Mapping[str, Any] = MappingProxyType({"optim": {"updates": 2, "timesteps": 3}})
    likelihood: ClassVar[Literal["denoising"]] = "denoising"

    def check(self, config: TrainConfig) -> None:
        """Refuses prompts with a single image, which has no others to be better than."""
        if config.sample.per_prompt < 2:
            rule = "test/raft needs at least two images of a prompt"
            raise ConfigError(f"{rule}: set sample.per_prompt")

    def weigh(
        self,
        rewards: Floats,
        prompt_ids: Sequence[str],
        statistics: PromptStatistics,
        config: TrainConfig,
    ) -> SampleWeights:
        """Weight 1 for the best image of each prompt, 0 for the others, which do not count."""
        scored = ~np.isnan(rewards)
        values = np.zeros(len(rewards))
        for prompt_id in set(prompt_ids):
            own = scored & (np.array(prompt_ids) == prompt_id)
            if own.any():
                values[np.argmax(np.where(own, rewards, -np.inf))] = 1.0
        return SampleWeights(values, scored, values > 0, zero_spread=0)

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """The denoising error."""
        return -weights * log_likelihoods
