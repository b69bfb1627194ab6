"""All that an iteration changes: parameters, optimizer, running statistics and the loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ddpo.distributed import World
from ddpo.errors import CheckpointError, ConfigError
from ddpo.io.fields import shown
from ddpo.io.tensors import check_finite, optimizer_tensors, restore_optimizer
from ddpo.policies.kept_weights import KeptWeights
from ddpo.policies.policy import Policy, TrainablePolicy, compile_denoiser
from ddpo.trainer.adapted import keep_start
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
from ddpo.trainer.weight_average import WeightAverage

__all__ = ["TrainingState"]

STATE: Final = Path("state/state.safetensors")
"""The file of a run folder, for messages."""
MOST_DIGITS: Final = 10  # of the index of a parameter


class TrainingState:
    """The state of a run, as it is before the first iteration or after the last finished one.

    Args:
        policy: an adapted policy. Its denoiser is sharded and compiled here, if the run does so.
        config: settings of the run.
        world: the processes of the run.

    Raises:
        ConfigError: the policy can be neither sharded nor compiled as the settings say, or its
            weights cannot be averaged.
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
        self.average = self._new_average(config)
        self.start = self._starting_weights(config)

    def _new_average(self, config: TrainConfig) -> WeightAverage | None:
        """The average of the weights, updated after each optimizer step; None if there is none."""
        if not config.optim.ema:
            return None
        if self._sharded_denoiser is not None:
            raise ConfigError(
                "optim.ema is not supported with --use_fsdp: set optim.ema=0, or use --multi_gpu"
            )
        average = WeightAverage(self.policy, config.optim.ema, config.optim.ema_every)
        self.optimizer.register_step_post_hook(average.step)
        return average

    def _starting_weights(self, config: TrainConfig) -> KeptWeights | None:
        """The weights that are the reference policy; None if that is the base model."""
        if config.optim.kl_reference == "base" or config.adapt.kind != "lora":
            return None  # full finetuning starts from the base model
        if self._sharded_denoiser is not None:
            raise ConfigError(
                "optim.kl_reference = 'start' is not supported with --use_fsdp: "
                "set it to base, or use --multi_gpu"
            )
        return keep_start(self.policy)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the policy has the averaged weights, if the run averages them."""
        return nullcontext() if self.average is None else self.average.in_place()

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
        average = self.average.tensors() if self.average else {}
        start = self.start.tensors() if self.start else {}
        return weights | moments | {"loss_scale": self.scaler.state()} | average | start

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], statistics: dict[str, Any]) -> None:
        """Restores what `tensors` and the statistics' `to_state` returned.

        Raises:
            CheckpointError: a tensor is missing, is of another shape or is not finite.
        """
        self._check(tensors)
        for name, parameter in self.policy.trainable_parameters():
            parameter.copy_(placed_like(parameter, tensors[f"policy.{name}"]))
        restore_optimizer(self.optimizer, tensors, placed_like)
        if self.average is not None:
            self.average.load(tensors, str(STATE))
        if self.start is not None:
            self.start.load(tensors, str(STATE))
        if "loss_scale" in tensors:
            self.scaler.load_state(tensors["loss_scale"])
        self.statistics.load_state(statistics)

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """Compares saved tensors with those of this run."""
        parameters = dict(self.policy.trainable_parameters())
        check_finite(tensors, STATE)
        for name, parameter in parameters.items():
            saved = tensors.get(f"policy.{name}")
            if saved is None or saved.shape != parameter.shape:
                shape = "missing" if saved is None else f"of the shape {list(saved.shape)}"
                raise CheckpointError(
                    f"{STATE} does not fit the run: policy.{name} is {shape}, "
                    f"not of {list(parameter.shape)}"
                )
        shapes = [parameter.shape for parameter in parameters.values()]
        moments: dict[str, set[str]] = {}
        for key in (key for key in tensors if key.startswith("optimizer.")):
            _, index, name = (*key.split(".", 2), "", "")[:3]
            known = index.isascii() and index.isdecimal() and len(index) < MOST_DIGITS
            if not known or int(index) >= len(shapes):
                raise CheckpointError(f"{STATE} does not fit the run: it has {shown(key)}")
            if tensors[key].ndim and tensors[key].shape != shapes[int(index)]:
                raise CheckpointError(f"{STATE} does not fit the run: {key} has another shape")
            moments.setdefault(index, set()).add(name)
        if len(set(map(frozenset, moments.values()))) > 1:
            raise CheckpointError(f"{STATE} is damaged: some moments of the optimizer are missing")
        scale = tensors.get("loss_scale")
        if scale is not None and not (tuple(scale.shape) == (2,) and scale[0] > 0 <= scale[1]):
            raise CheckpointError(f"{STATE} is damaged: its loss_scale cannot be so")
