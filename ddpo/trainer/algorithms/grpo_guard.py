"""GRPO-Guard: ratios that are centred and of one spread at all steps, so that clipping works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.trainer.algorithms.grpo import FLOW_GRPO
from ddpo.trainer.algorithms.weighing import AdvantageWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.losses import clipped_surrogate
from ddpo.trainer.recipe import merged
from ddpo.trainer.step_weights import guard_log_ratio

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.items import Items

GUARD: Final[Mapping[str, Any]] = merged(
    FLOW_GRPO,
    {"optim": {"kl": 0.0, "lr": 1e-4, "clip_range": 2e-6}, "advantage": {"std": "group"}},
)
"""Source: yifan123/flow_grpo, config/grpo_guard.py, for the 65,536 dimensions of SD 3.5 at 512."""


@dataclass(frozen=True, slots=True)
class GrpoGuard(AdvantageWeights):
    """GRPO with regulated ratios, and with each step's gradient divided by its time.

    Sources: Wang et al., arXiv 2510.22319; train_sd3_GRPO_Guard.py of yifan123/flow_grpo. That code
    averages the bias over the batch; here it is that of the item.
    """

    summary: str = "GRPO-Guard: ratios without bias and with equal spread at all steps"
    defaults: Mapping[str, Any] = field(default_factory=lambda: GUARD)
    likelihood: Literal["transition"] = "transition"
    needs: Sequence[str] = ("old_output", "target")

    def check(self, config: TrainConfig) -> None:
        """Accepts all settings."""

    def item_loss(self, items: Items, weights: Tensor, config: TrainConfig) -> Tensor:
        """The clipped surrogate of the regulated ratio, divided by the step's time."""
        ratio = _log_ratio(items)
        loss = clipped_surrogate(
            ratio, ratio.new_zeros(len(items)), weights, config.optim.clip_range
        )
        return loss / items.coefficients().change

    def outside(self, items: Items, config: TrainConfig) -> Tensor:
        """True for items whose regulated ratio is outside the clip range."""
        return (_log_ratio(items).exp() - 1).abs() > config.optim.clip_range


def _log_ratio(items: Items) -> Tensor:
    return guard_log_ratio(items.mean_shift(), items.noise())


GRPO_GUARD = GrpoGuard()
