"""All that an iteration changes: parameters, optimizer, running statistics and the loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ddpo.distributed import World
from ddpo.io.tensors import optimizer_tensors, restore_optimizer
from ddpo.policies.policy import Policy, TrainablePolicy, compile_denoiser
from ddpo.trainer.advantages import PromptStatistics
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.grad_scaler import GradScaler
from ddpo.trainer.optimizer import make_optimizer
from ddpo.trainer.sharding import (
    gathered,
    gathered_tensors,
    placed_like,
    shard_policy,
    wrap_policy,
)

__all__ = ["TrainingState"]


class TrainingState:
    """The state of a run, as it is before the first iteration or after the last finished one.

    Args:
        policy: an adapted policy. Its denoiser is sharded and compiled here, if the run does so.
        config: settings of the run.
        world: the processes of the run.

    Raises:
        ConfigError: the policy can be neither sharded nor compiled as the settings say.
    """

    def __init__(self, policy: TrainablePolicy, config: TrainConfig, world: World) -> None:
        self.policy = policy
        self.world = world
        self._sharded_denoiser = shard_policy(policy, world)
        if config.compile:
            compile_denoiser(policy)
        parameters = [parameter for _, parameter in policy.trainable_parameters()]
        self.optimizer = make_optimizer(parameters, config, policy.device)
        self.statistics = PromptStatistics(config.advantage.buffer, config.advantage.min_count)
        self.scaler = GradScaler(needed=config.dtype == "float16")

    def wrapped_policy(self) -> Policy:
        """The policy to train, whose gradients are averaged over the processes."""
        return wrap_policy(self.policy, self.world)

    def whole_parameters(self) -> AbstractContextManager[None]:
        """Inside, the main process has whole trained parameters to save; all processes enter."""
        return gathered(self._sharded_denoiser, self.world.is_main)

    def tensors(self) -> dict[str, Tensor]:
        """Trained parameters, optimizer moments and loss scale; called in `whole_parameters`."""
        weights = {
            f"policy.{name}": parameter.detach()
            for name, parameter in self.policy.trainable_parameters()
        }
        moments = optimizer_tensors(self.optimizer)
        if self._sharded_denoiser is not None:
            moments = gathered_tensors(moments, self.world.is_main)
        return weights | moments | {"loss_scale": self.scaler.state()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], statistics: dict[str, Any]) -> None:
        """Restores what `tensors` and the statistics' `to_state` returned."""
        for name, parameter in self.policy.trainable_parameters():
            parameter.copy_(placed_like(parameter, tensors[f"policy.{name}"]))
        restore_optimizer(self.optimizer, tensors, placed_like)
        if "loss_scale" in tensors:
            self.scaler.load_state(tensors["loss_scale"])
        self.statistics.load_state(statistics)
