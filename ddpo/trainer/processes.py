"""The processes of one run: one, or several that `accelerate launch` started, each with its own share of the pictures.

What is random is keyed by picture, rewards are gathered once, and each process plans all updates from the same numbers: the processes
differ only in the pictures that they sample, score and train on. Gradients are summed by the module that accelerate prepared
(`DistributedDataParallel`): forward passes that record gradients go through it. With FSDP the
denoiser itself is spread over the processes, see `ddpo.trainer.sharding`. One process alone needs
none of this, nor accelerate.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn

import ddpo.errors
from ddpo.devices import AUTO, accelerator, available_devices, resolve_device
from ddpo.errors import ConfigError, DdpoError
from ddpo.launch import load_whole_models, process_count
from ddpo.policies.policy import Policy
from ddpo.trainer.config import SampleConfig
from ddpo.trainer.sharding import (
    SUPPORTED,
    check_launcher,
    gathered,
    gathered_tensors,
    shard,
    sharding_requested,
)

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["ALONE", "World"]

PATIENCE: Final = timedelta(hours=6)
"""How long a process waits for the others, whose reward may be slow. One that dies does not keep them waiting: the launcher ends all."""

T = TypeVar("T")
Y = TypeVar("Y")
R = TypeVar("R")


class World:
    """What the processes of a run know of each other. `Processes.join` makes it.

    Args:
        accelerator: accelerate's; None if the process is alone.
        device: of this process.
        mesh: all processes, among which the denoiser is sharded; None if each has a whole one.
    """

    def __init__(
        self,
        accelerator: Any | None,
        device: str,
        mesh: DeviceMesh | None = None,
    ) -> None:
        self.accelerator, self.device = accelerator, device
        self.mesh = mesh
        self.index: int = accelerator.process_index if accelerator else 0
        self.count: int = accelerator.num_processes if accelerator else 1
        self._module: Any = None
        self._sharded: nn.Module | None = None

    @classmethod
    def join(cls, device: str) -> World:
        """Meets the other processes, if the environment says that there are any.

        Args:
            device: the torch device of the settings, "auto" for the accelerator that is here. Of several processes each takes its own.

        Raises:
            ConfigError: the launcher's settings are wrong or not supported, or the device is not
                here or not fit for several processes.
        """
        check_launcher()
        if process_count() == 1:
            return cls(None, resolve_device(device))
        cpu = _check_device(device)
        from accelerate import Accelerator
        from accelerate.utils import (
            DistributedDataParallelKwargs,
            DistributedType,
            InitProcessGroupKwargs,
        )

        load_whole_models()
        handlers = [
            InitProcessGroupKwargs(timeout=PATIENCE),
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        ]
        accelerator = Accelerator(
            cpu=cpu, mixed_precision="no", kwargs_handlers=handlers
        )  # precision is the policy's own affair
        known = (
            DistributedType.MULTI_CPU,
            DistributedType.MULTI_GPU,
            DistributedType.MULTI_XPU,
            DistributedType.FSDP,
        )
        if accelerator.distributed_type not in known:
            kind = accelerator.distributed_type.value
            raise ConfigError(f"accelerate was configured for {kind}; {SUPPORTED}")
        own = "cpu" if cpu else str(accelerator.device)
        mesh = _mesh(own, accelerator.num_processes) if sharding_requested() else None
        return cls(accelerator, own, mesh)

    @property
    def main(self) -> bool:
        """Whether this process writes the run folder and speaks for all."""
        return self.index == 0

    @property
    def sharded(self) -> bool:
        """True if the denoiser is sharded, so that each of its calls is one of all processes."""
        return self.mesh is not None

    def share(self, sample: SampleConfig) -> range:
        """Which of the pictures of an iteration are this process's: whole prompts, in order.

        Raises:
            ConfigError: the prompts cannot be shared equally.
        """
        groups, left = divmod(sample.samples // sample.per_prompt, self.count)
        if left:
            prompts = (
                f"{sample.samples // sample.per_prompt} prompts × {sample.per_prompt} pictures"
            )
            raise ConfigError(
                f"{self.count} processes cannot share {prompts} equally: make sample.samples a multiple of {self.count * sample.per_prompt}"
            )
        size = groups * sample.per_prompt
        return range(self.index * size, (self.index + 1) * size)

    def gather(self, value: T) -> list[T]:
        """The value of each process, in order, on every process. Tensors must be on the CPU."""
        if self.accelerator is None:
            return [value]
        from accelerate.utils import gather_object

        return cast("list[T]", gather_object([value]))

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over the processes."""
        return [max(column) for column in zip(*self.gather(values), strict=True)]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes of a tensor on the CPU, on every process."""
        return torch.stack(self.gather(tensor)).sum(0)

    def calls(self, own: int) -> int:
        """The number of calls of the denoiser that this process has to make.

        Where the denoiser is sharded, as many as the process that has the most; else at least one.

        Args:
            own: the number of calls for which it has items.
        """
        return max(1, max(self.gather(own)) if self.sharded else own)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is inside, where processes do not speak to each other, has to succeed on all of them: the error of one is that of all.

        Raises:
            DdpoError: the first in the order of the processes, on every process.
        """
        if self.count == 1:
            yield
            return
        failure: tuple[type[DdpoError], str] | None = None
        try:
            yield
        except DdpoError as error:
            failure = (
                next(
                    kind for kind in type(error).__mro__ if kind.__module__ == ddpo.errors.__name__
                ),
                str(error),
            )
        for found in self.gather(failure):
            if found is not None:
                kind, message = found
                raise kind(message)

    def in_step(self) -> AbstractContextManager[None]:
        """`together` where the denoiser is sharded, nothing elsewhere.

        A process that failed makes no further calls, for which the others would wait.
        """
        return self.together() if self.sharded else nullcontext()

    def stepwise(self, work: Generator[Y, None, R]) -> Generator[Y, None, R]:
        """`work`, of which each step up to the next value is `in_step`."""
        while True:
            with self.in_step():
                try:
                    found = next(work)
                except StopIteration as end:
                    return cast(R, end.value)
            yield found

    def shard(self, policy: Policy) -> None:
        """Shards the denoiser of an adapted policy in place, if the launcher said so.

        Raises:
            ConfigError: its precision is float16, or its parameters cannot be found.
        """
        if self.mesh is None:
            return
        if policy.storage_dtype == torch.float16:
            raise ConfigError(
                "dtype = float16 is not supported with --use_fsdp: use bfloat16 or float32"
            )
        self._sharded = shard(policy, self.mesh)

    def whole_parameters(self) -> AbstractContextManager[None]:
        """Inside, the main process has whole trained parameters to save; all processes enter."""
        return nullcontext() if self._sharded is None else gathered(self._sharded, self.main)

    def whole_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that may be sharded, whole on the main process; all processes call."""
        if self._sharded is None:
            return dict(tensors)
        return gathered_tensors(tensors, self.main)

    def prepared(self, policy: Policy) -> Policy:
        """The policy to be trained: its gradients are summed over the processes, see `synchronised`. Alone, it is `policy` itself."""
        if self.accelerator is None or self.sharded:
            return policy
        self._module = self.accelerator.prepare_model(_Denoiser(policy))
        return cast(Policy, _Prepared(policy, self._module))

    def synchronised(self, now: bool) -> AbstractContextManager[None]:
        """Around a forward and backward pass: its gradients, and those kept back since, are summed over the processes if `now`."""
        return (
            nullcontext()
            if now or self._module is None
            else cast("AbstractContextManager[None]", self._module.no_sync())
        )


ALONE: Final = World(None, "cpu")
"""A process that is not told of others. Its device is of no account."""


class _Denoiser(nn.Module):
    """`policy.predict` as a module of what is trained, whatever the policy is made of."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameter for _, parameter in policy.trainable_parameters())
        self._predict = policy.predict

    def forward(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """The denoiser's output."""
        return self._predict(latents, timesteps, conditioning)


class _Prepared:
    """A policy that predicts through the prepared module whenever gradients are recorded."""

    def __init__(self, policy: Policy, module: nn.Module) -> None:
        self._policy, self._module = policy, module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """As the policy's."""
        through = self._module if torch.is_grad_enabled() else self._policy.predict
        return cast(Tensor, through(latents, timesteps, conditioning))


def _mesh(device: str, count: int) -> DeviceMesh:
    """All processes in a row."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(torch.device(device).type, (count,))


def _check_device(device: str) -> bool:
    """Whether it is the CPU."""
    wanted = int(os.environ.get("LOCAL_WORLD_SIZE") or "1")
    try:
        kind = torch.device(accelerator() or "cpu" if device == AUTO else device)
    except RuntimeError as error:
        raise ConfigError(
            f"device {device!r} is unknown; this machine has: {', '.join(available_devices())}"
        ) from error
    if ":" in device:
        raise ConfigError(
            f"device={device} names one device for several processes; say {kind.type}, and each takes its own"
        )
    if kind.type == "cuda" and torch.cuda.device_count() < wanted:
        raise ConfigError(
            f"{wanted} processes on this machine need a GPU each; it has {torch.cuda.device_count()}"
        )
    return kind.type == "cpu"
