"""AWM: the model's own images are fitted with their advantages, away from the worse ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.errors import ConfigError
from ddpo.trainer.algorithms.rwr import check_noise_levels
from ddpo.trainer.algorithms.weighing import AdvantageWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import weighted_likelihood

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS: Final[Mapping[str, Any]] = {
    "sample": {"samples": 576, "per_prompt": 24},
    "optim": {
        "updates": 1,
        "timesteps": 6,
        "skip_last": 0,
        "lr": 3e-4,
        "kl": 5e-3,
        "kl_of": "output",
        "ema": 0.9,
        "ema_every": 8,
    },
    "advantage": {"kind": "group", "std": "group", "clip": 5.0},
}
"""Source: scxue/advantage_weighted_matching, config/dgx_awm.py, with its KL weight of 1e-3.

There advantages are divided by 5, here they are not.
"""


@dataclass(frozen=True, slots=True)
class Awm(AdvantageWeights):
    """Advantage weighted matching: the denoising loss, weighted by the advantage.

    The noise of an item is fresh, not that of the sampler, so any sampler will do, also one without
    noise. There is no ratio and no clipping: `optim.kl` keeps the model near the reference.

    Source: Xue et al., arXiv 2509.25050.
    """

    summary: str = "advantage weighted matching: the denoising loss, weighted by the advantage"
    defaults: Mapping[str, Any] = field(default_factory=lambda: SETTINGS)
    likelihood: Literal["denoising"] = "denoising"

    def check(self, config: TrainConfig) -> None:
        """Checks that the settings fit the denoising loss.

        Raises:
            ConfigError: There is no number of noise levels, or the KL has another unit.
        """
        check_noise_levels(config)
        if config.optim.kl and config.optim.kl_of != "output":
            raise ConfigError(
                f"{config.algorithm} has no denoising steps: with optim.kl="
                f"{config.optim.kl:g} set optim.kl_of=output (it is {config.optim.kl_of})"
            )

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """The denoising error, times the advantage."""
        return weighted_likelihood(log_likelihoods, weights)


AWM = Awm()
