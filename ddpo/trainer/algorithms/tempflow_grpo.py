"""TempFlow-GRPO: one step with noise, branches that differ only there, weighted by its noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.errors import ConfigError
from ddpo.trainer.algorithms.weighing import AdvantageWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import clipped_surrogate
from ddpo.trainer.step_weights import temporal_weight

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.items import Items

TEMPFLOW: Final[Mapping[str, Any]] = {
    "sample": {"samples": 16 * 24, "per_prompt": 24, "branches": 6},
    "optim": {"timesteps": 0, "skip_last": 1},
    "advantage": {"kind": "group", "std": "group", "clip": 5.0},
    "window": {"steps": 1, "kind": "random"},
}
"""Settings of Stable Diffusion 3.5 medium.

Source: Tencent-Hunyuan/UniRL, examples/diffusion/sd3/sd3_tempflowgrpo.yaml. It trains three branch
steps of each prompt in an iteration, here it is one.
"""


@dataclass(frozen=True, slots=True)
class TempflowGrpo(AdvantageWeights):
    """GRPO with the noise, and so the credit, at one step of each prompt.

    Sources: He et al., arXiv 2508.04324; tempflowgrpo.py of Tencent-Hunyuan/UniRL.
    """

    summary: str = "TempFlow-GRPO: branches at one step of each prompt, weighted by its noise"
    defaults: Mapping[str, Any] = field(default_factory=lambda: TEMPFLOW)
    likelihood: Literal["transition"] = "transition"
    needs: Sequence[str] = ()

    def check(self, config: TrainConfig) -> None:
        """Checks that each image has noise at one step, to which its reward is due.

        Raises:
            ConfigError: there are several.
        """
        if config.window.steps != 1:
            raise ConfigError(
                f"tempflow_grpo has noise at one step of each image: set window.steps=1 "
                f"(it is {config.window.steps})"
            )

    def item_loss(self, items: Items, weights: Tensor, config: TrainConfig) -> Tensor:
        """The clipped surrogate loss, weighted by the noise of the step."""
        ratio = items.log_ratio()
        loss = clipped_surrogate(
            ratio, ratio.new_zeros(len(items)), weights, config.optim.clip_range
        )
        return temporal_weight(items.coefficients().k) * loss


TEMPFLOW_GRPO = TempflowGrpo()
