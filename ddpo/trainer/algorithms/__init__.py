"""The named methods. An algorithm chooses the loss and says which settings it needs; the loop knows none of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ddpo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.config import TrainConfig

__all__ = ["Algorithm", "algorithms"]


class Algorithm(Protocol):
    """One method of turning a rollout into updates."""

    summary: str
    defaults: Mapping[str, Any]  # settings that a run of this method has unless it says otherwise, as plain nested values

    def check(self, config: TrainConfig) -> None:
        """Raises `ConfigError` where the settings contradict the method."""
        ...

    def loss(self, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, config: TrainConfig) -> Tensor:
        """One loss per (picture, step) item, `[items]`; the tensors are float32 `[items]`."""
        ...


algorithms: Registry[Algorithm] = Registry(
    "algorithm",
    "ddpo.algorithms",
    None,
    {"ddpo_is": "ddpo.trainer.algorithms.ddpo_is:DDPO_IS", "ddpo_sf": "ddpo.trainer.algorithms.ddpo_sf:DDPO_SF"},
)
"""Built-in algorithms and those of the entry-point group `ddpo.algorithms`; values follow `Algorithm`."""
