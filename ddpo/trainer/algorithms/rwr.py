"""RWR: the model is fitted again to its own images, each weighted by its exponentiated reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.errors import ConfigError
from ddpo.trainer.config import RegressionConfig, TrainConfig
from ddpo.trainer.losses import weighted_likelihood

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights

__all__ = ["ROUND", "RWR", "Regression", "check_noise_levels"]

ROUND: Final[Mapping[str, Any]] = {
    "iterations": 5,
    "checkpoint_every": 1,
    "grid_every": 1,
    "sample": {"samples": 768, "per_prompt": 16},
    "optim": {"updates": 8, "epochs": 5, "timesteps": 1, "lr": 1e-3, "kl": 0.0},
}
"""Few large iterations, each a round of collecting and fitting.

Together they have as many images as a run of the other methods.
"""


@dataclass(frozen=True, slots=True)
class Regression:
    """Reward-weighted regression with the denoising loss.

    Source: arXiv 2305.13301, section 4.2.

    Attributes:
        weights: Rule of the images' weights, from rewards, prompt ids and its settings.
    """

    summary: str
    defaults: Mapping[str, Any]
    weights: Callable[[Floats, Sequence[str], RegressionConfig], SampleWeights]
    likelihood: Literal["denoising"] = "denoising"

    def check(self, config: TrainConfig) -> None:
        """Checks that the settings fit the denoising loss.

        Its noise levels have no "all", and there is no KL to a reference.

        Raises:
            ConfigError: A setting does not fit regression.
        """
        check_noise_levels(config)
        if config.optim.kl:
            raise ConfigError(
                f"{config.algorithm} has no denoising steps whose KL could be penalised: "
                f"set optim.kl=0 (it is {config.optim.kl:g})"
            )

    def weigh(
        self,
        rewards: Floats,
        prompt_ids: Sequence[str],
        statistics: PromptStatistics,
        config: TrainConfig,
    ) -> SampleWeights:
        """The weights of `weights`."""
        return self.weights(rewards, prompt_ids, config.regression)

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """The weighted denoising error."""
        return weighted_likelihood(log_likelihoods, weights)


def check_noise_levels(config: TrainConfig) -> None:
    """Checks that the number of noise levels per image is stated, since they have no "all".

    Raises:
        ConfigError: `optim.timesteps` is 0.
    """
    if config.optim.timesteps < 1:
        raise ConfigError(
            f"{config.algorithm} samples noise levels at random: optim.timesteps, "
            "their number per image and epoch, must be at least 1"
        )


def _softmax(rewards: Floats, prompt_ids: Sequence[str], config: RegressionConfig) -> SampleWeights:
    """Weights softmax(β r), of mean 1 within each prompt."""
    from ddpo.trainer.regression import softmax_weights  # numpy slows a mistyped command

    return softmax_weights(rewards, prompt_ids, config)


RWR = Regression(
    "reward-weighted regression on the model's own images, rounds of collecting and fitting",
    ROUND,
    _softmax,
)
