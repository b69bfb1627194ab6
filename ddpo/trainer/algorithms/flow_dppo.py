"""Flow-DPPO: the exact divergence of a step, not its sampled ratio, bounds the updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.trainer.algorithms.grpo import FLOW_GRPO
from ddpo.trainer.algorithms.weighing import AdvantageWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import masked_surrogate
from ddpo.trainer.recipe import merged
from ddpo.trainer.step_weights import within_divergence

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.items import Items

DPPO: Final[Mapping[str, Any]] = merged(FLOW_GRPO, {"optim": {"kl": 0.0, "divergence": 1e-5}})
"""Flow-GRPO's, with the threshold of Tencent-Hunyuan/UniRL, flowdppo.py, `kl_mask_threshold`.

X-GenGroup/Flow-Factory takes 1e-6.
"""


@dataclass(frozen=True, slots=True)
class FlowDppo(AdvantageWeights):
    """Policy gradient without clipping, where items that have moved too far are left out.

    Sources: arXiv 2606.11025; flowdppo.py of Tencent-Hunyuan/UniRL.
    """

    summary: str = "Flow-DPPO: the exact KL of each step from the sampling policy bounds the update"
    defaults: Mapping[str, Any] = field(default_factory=lambda: DPPO)
    likelihood: Literal["transition"] = "transition"
    needs: Sequence[str] = ("old_output",)

    def check(self, config: TrainConfig) -> None:
        """Accepts all settings."""

    def item_loss(self, items: Items, weights: Tensor, config: TrainConfig) -> Tensor:
        """-A ρ, without the items that would move further beyond the divergence."""
        log_ratio = items.log_ratio()
        ratio = log_ratio.detach().exp()
        far = items.divergence().detach()
        kept = within_divergence(far, ratio, weights, config.optim.divergence)
        return masked_surrogate(log_ratio, weights, kept)

    def outside(self, items: Items, config: TrainConfig) -> Tensor:
        """True for items whose divergence has reached the bound."""
        return items.divergence() >= config.optim.divergence


FLOW_DPPO = FlowDppo()
