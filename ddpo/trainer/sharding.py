"""A policy whose denoiser several processes train: a copy on each (DDP), or sharded (FSDP 2).

With FSDP each process keeps its part of every parameter, gradient and optimizer moment. The
parameters of a block are gathered while that block runs, in sampling as in training. So each call
of the denoiser is a call of all processes, and they have to make equally many.

Source: `torch.distributed.fsdp.fully_shard`; Zhao et al., arXiv 2304.11277.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ddpo.distributed import World
from ddpo.errors import ConfigError
from ddpo.policies.policy import Policy

__all__ = [
    "SUPPORTED",
    "ShardedDenoiser",
    "check_launcher",
    "gathered",
    "gathered_tensors",
    "join_world",
    "local",
    "placed_like",
    "shard_policy",
    "sharding_requested",
    "whole",
    "wrap_policy",
]

STRATEGIES: Final = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
"""Strategies of accelerate that are not supported, by the variable that its launcher sets."""

SUPPORTED: Final = (
    "training knows data parallelism (--multi_gpu) and FSDP 2 (--use_fsdp --fsdp_version 2)"
)

FSDP_SETTINGS: Final = {
    "FSDP_VERSION": ("2", "add --fsdp_version 2 to `accelerate launch`"),
    "FSDP_OFFLOAD_PARAMS": ("false", "leave --fsdp_offload_params out"),
    "FSDP_RESHARD_AFTER_FORWARD": ("true", "leave --fsdp_reshard_after_forward out"),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "false",
        "say --set adapt.checkpointing=true in place of --fsdp_activation_checkpointing",
    ),
    "FSDP_AUTO_WRAP_POLICY": (
        "TRANSFORMER_BASED_WRAP",
        "leave --fsdp_auto_wrap_policy out, as models name their own blocks",
    ),
    "FSDP_TRANSFORMER_CLS_TO_WRAP": (
        "",
        "leave --fsdp_transformer_layer_cls_to_wrap out, as models name their own blocks",
    ),
    "FSDP_IGNORED_MODULES": ("", "leave --fsdp_ignored_modules out"),
}
"""Variables of accelerate's launcher: the only supported value, and advice for any other."""


class ShardedDenoiser(nn.Module):
    """`policy.predict` as the forward pass of the modules that it trains.

    Args:
        policy: an adapted policy.

    Raises:
        ConfigError: trained parameters are not in modules that are the policy's attributes.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        trained = {parameter for _, parameter in policy.trainable_parameters()}
        self.trained = nn.ModuleList()
        for part in vars(policy).values():
            if isinstance(part, nn.Module) and not trained.isdisjoint(part.parameters()):
                self.trained.append(part)
        if not trained <= set(self.trained.parameters()):
            raise ConfigError(
                f"the model {policy.model!r} cannot be sharded: its trained parameters are not in "
                "modules that are its attributes; use --multi_gpu in place of --use_fsdp"
            )
        self._predict = policy.predict

    def forward(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The denoiser's output."""
        return self._predict(latents, timesteps, conditioning)

    def blocks(self) -> list[nn.Module]:
        """Modules that are gathered one at a time, inner ones first: those that a model names.

        diffusers' models name the classes of theirs in `_no_split_modules`.
        """
        names: set[str] = set()
        for module in self.trained:
            names.update(getattr(module, "_no_split_modules", None) or ())
        inner_first = reversed(list(self.modules()))
        return [module for module in inner_first if type(module).__name__ in names]


def sharding_requested() -> bool:
    """True if `accelerate launch --use_fsdp` started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def check_launcher() -> None:
    """Looks for settings of `accelerate launch` that would be ignored.

    Raises:
        ConfigError: there is one; says what to change.
    """
    for variable, name in STRATEGIES.items():
        if os.environ.get(variable, "").lower() == "true":
            raise ConfigError(f"accelerate was configured for {name}; {SUPPORTED}")
    if not sharding_requested():
        return
    for variable, (supported, advice) in FSDP_SETTINGS.items():
        found = os.environ.get(variable, supported)
        if found.lower() != supported.lower():
            raise ConfigError(f"{variable}={found} is not supported: {advice}")


def join_world(device: str) -> World:
    """Joins the other processes of a training run, if the launcher started any.

    Args:
        device: torch device of the settings, or "auto". Each of several processes takes its own.

    Raises:
        ConfigError: a setting of the launcher is wrong or not supported, or the device does not
            fit.
    """
    check_launcher()
    return World.join(device, sharded=sharding_requested())


def shard_policy(policy: Policy, world: World) -> ShardedDenoiser | None:
    """Shards the denoiser of a policy in place, if the launcher says so; None if it does not.

    Afterwards `policy.predict` is a call of all processes. No process waits for another here: each
    has loaded the same weights and keeps its part of them.

    Args:
        policy: an adapted policy, before its optimizer is made.
        world: all processes of the run.

    Raises:
        ConfigError: the policy is of float16, or its parameters cannot be found.
    """
    if not world.sharded:
        return None
    if policy.storage_dtype == torch.float16:
        raise ConfigError(
            "dtype = float16 is not supported with --use_fsdp: use bfloat16 or float32"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(world.device).type, (world.world_size,))
    denoiser = ShardedDenoiser(policy)
    for module in (*denoiser.blocks(), denoiser):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    policy.predict = denoiser  # type: ignore[method-assign]
    return denoiser


def wrap_policy(policy: Policy, world: World) -> Policy:
    """The policy to train, whose gradients are averaged over the processes by `World.wrap`.

    Alone, or with a sharded denoiser, it is `policy` itself.
    """
    denoiser = _Denoiser(policy)
    wrapped = world.wrap(denoiser)
    return policy if wrapped is denoiser else cast(Policy, _WrappedPolicy(policy, wrapped))


class _Denoiser(nn.Module):
    """`policy.predict` as a module of the trained parameters, whatever the policy is made of."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameter for _, parameter in policy.trainable_parameters())
        self._predict = policy.predict

    def forward(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The denoiser's output."""
        return self._predict(latents, timesteps, conditioning)


class _WrappedPolicy:
    """A policy that predicts through the wrapped module whenever gradients are recorded."""

    def __init__(self, policy: Policy, module: nn.Module) -> None:
        self._policy = policy
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The denoiser's output."""
        through = self._module if torch.is_grad_enabled() else self._policy.predict
        return cast(Tensor, through(latents, timesteps, conditioning))


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, gathered by all processes; any other tensor as it is."""
    return cast(Tensor, tensor.full_tensor()) if hasattr(tensor, "full_tensor") else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor as it is."""
    return cast(Tensor, tensor.to_local()) if hasattr(tensor, "to_local") else tensor


def placed_like(parameter: Tensor, value: Tensor) -> Tensor:
    """This process's part of a value that is as large as a sharded parameter; else the value.

    Args:
        parameter: a parameter of the policy.
        value: a tensor that is the same on every process.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    on_device = value.to(parameter.device)
    return distribute_tensor(
        on_device, parameter.device_mesh, parameter.placements, src_data_rank=None
    )


@contextmanager
def gathered(denoiser: nn.Module | None, main: bool) -> Iterator[None]:
    """Inside, the main process has the trained parameters of a sharded denoiser whole, on the CPU.

    All processes enter together. Parameters are gathered one at a time, so a device needs room for
    the largest one only. The denoiser is not called inside.

    Args:
        denoiser: the module that `shard_policy` returned; None: nothing is sharded.
        main: True on the main process.
    """
    places: list[tuple[nn.Module, str, Parameter]] = []
    for module in denoiser.modules() if denoiser else ():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                value = whole(parameter.detach())
                if main:
                    places.append((module, name, parameter))
                    module.register_parameter(name, Parameter(value.cpu()))
    try:
        yield
    finally:
        for module, name, parameter in places:
            module.register_parameter(name, parameter)


def gathered_tensors(tensors: Mapping[str, Tensor], main: bool) -> dict[str, Tensor]:
    """Sharded tensors whole and on the CPU, on the main process; nothing on the others.

    Args:
        tensors: tensors under the same names, in the same order, on every process.
        main: True on the main process.
    """
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if main:
            found[name] = value.cpu()
    return found
