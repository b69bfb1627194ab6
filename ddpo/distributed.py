"""The processes that share the work of one run or one evaluation.

`accelerate launch` and `torchrun` start them and set the environment variables read here. Cluster
software sets WORLD_SIZE too, also for a program that is to run alone.

Whatever is random is keyed by image, so a process computes the same whatever the others do. They
meet to exchange rewards, to sum gradients and to wait for each other. A process that is alone needs
none of this, nor accelerate.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import ddpo.errors
from ddpo.devices import AUTO, accelerator, available_devices, resolve_device
from ddpo.errors import ConfigError, DdpoError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "ALONE",
    "World",
    "follow_quietly",
    "is_first_process",
    "let_first_process_report",
    "load_whole_models",
    "process_count",
]

ADVICE: Final = "start with `accelerate launch`, or unset WORLD_SIZE for a run of one process"
LAST_PORT: Final = 65535

PATIENCE: Final = timedelta(hours=12)
"""Time that a process waits for the others. If one dies, the launcher ends all at once."""

REPORTING_TIME: Final = 10.0
"""Seconds in which the first process reports an error that all processes have."""

T = TypeVar("T")
Y = TypeVar("Y")
R = TypeVar("R")


class World:
    """The processes of a run as one of them sees them.

    Args:
        state: accelerate's `PartialState`; None if the process is alone.
        device: torch device of this process.
        sharded: True if the denoiser is sharded, so that each of its calls is one of all processes.
    """

    def __init__(self, state: Any | None, device: str, sharded: bool = False) -> None:
        self._state = state
        self.device = device
        self.sharded = sharded
        self.rank: int = state.process_index if state else 0
        self.world_size: int = state.num_processes if state else 1
        self._wrapped: Any = None

    @classmethod
    def join(cls, device: str, sharded: bool = False) -> World:
        """Joins the other processes, if the environment says that there are any.

        Args:
            device: torch device of the settings, or "auto"; each process takes its own.
            sharded: True if several processes shard the denoiser among them.

        Raises:
            ConfigError: the launcher's variables are wrong, or the device is not here or is not fit
                for several processes.
        """
        if process_count() == 1:
            return cls(None, resolve_device(device))
        kind = _device_kind(device)
        from accelerate import PartialState
        from accelerate.utils import DistributedType

        load_whole_models()
        atexit.unregister(_end_process_group)
        state = PartialState(cpu=kind == "cpu", timeout=PATIENCE)
        if state.distributed_type not in (
            DistributedType.MULTI_CPU,
            DistributedType.MULTI_GPU,
            DistributedType.MULTI_XPU,
        ):
            raise ConfigError(
                f"accelerate was configured for {state.distributed_type.value}; "
                "several processes run on CPUs, CUDA or XPU"
            )
        return cls(state, "cpu" if kind == "cpu" else str(state.device), sharded)

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and reports for all."""
        return self.rank == 0

    def shard(self, items: Sequence[T], block: int) -> list[list[T]]:
        """This process's blocks of `block` items: every `world_size`-th.

        All processes call it with the same items.
        """
        return [
            list(items[start : start + block])
            for start in range(self.rank * block, len(items), self.world_size * block)
        ]

    def gather(self, value: T) -> list[T]:
        """The value of each process, in order of rank, on every process. Tensors are on the CPU."""
        if self._state is None:
            return [value]
        from accelerate.utils import gather_object

        return cast("list[T]", gather_object([value]))

    def all_reduce_max(self, *values: float) -> list[float]:
        """The largest of each value over the processes, on every process."""
        return [max(column) for column in zip(*self.gather(values), strict=True)]

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum of a CPU tensor over the processes, in order of rank, on every process."""
        import torch

        return torch.stack(self.gather(tensor)).sum(0)

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def leave(self) -> None:
        """Ends the process group when this process ends, unless it joins again.

        It is called after the last exchange. Without it torch's threads may outlive the interpreter
        and abort a process whose work is done.
        """
        if self._state is not None:
            atexit.register(_end_process_group)

    @contextmanager
    def all_succeed(self) -> Iterator[None]:
        """Makes the error of one process that of all. Inside, the processes do not meet.

        Raises:
            DdpoError: the first error in order of rank, on every process.
        """
        if self.world_size == 1:
            yield
            return
        failure: tuple[type[DdpoError], str] | None = None
        try:
            yield
        except DdpoError as error:
            failure = (_own_class(error), str(error))
        for found in self.gather(failure):
            if found is not None:
                self.leave()
                kind, message = found
                raise kind(message)

    def in_lockstep(self) -> AbstractContextManager[None]:
        """`all_succeed` where the denoiser is sharded, nothing elsewhere.

        A process that failed makes no further calls, for which the others would wait.
        """
        return self.all_succeed() if self.sharded else nullcontext()

    def lockstep(self, work: Generator[Y, None, R]) -> Generator[Y, None, R]:
        """The generator `work`, with each step up to the next value taken `in_lockstep`."""
        while True:
            with self.in_lockstep():
                try:
                    found = next(work)
                except StopIteration as end:
                    return cast(R, end.value)
            yield found

    def collective_calls(self, own: int) -> int:
        """Number of calls of the denoiser that this process has to make.

        With a sharded denoiser all processes make as many as the one that needs most. Otherwise
        each makes at least one.

        Args:
            own: number of calls for which this process has items.
        """
        return max(1, max(self.gather(own)) if self.sharded else own)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages gradients over the processes; alone, `module`.

        All processes call it, once per run.
        """
        if self._state is None or self.sharded:
            return module
        import torch
        from torch.nn.parallel import DistributedDataParallel

        index = torch.device(self.device).index
        devices = None if index is None else [index]
        self._wrapped = DistributedDataParallel(
            module, device_ids=devices, gradient_as_bucket_view=True
        )
        return cast("nn.Module", self._wrapped)

    def sync_gradients(self, now: bool) -> AbstractContextManager[None]:
        """Around one forward and backward pass through the wrapped module.

        Args:
            now: True if gradients, with those held back since the last time, are averaged over
                the processes after this pass; False if they are held back.
        """
        if now or self._wrapped is None:
            return nullcontext()
        return cast("AbstractContextManager[None]", self._wrapped.no_sync())


ALONE: Final = World(None, "cpu")
"""A world of one process, where no device is needed."""


def process_count() -> int:
    """Number of processes that share the work; 1 without a launcher.

    Raises:
        ConfigError: the variables of the launcher are not numbers, or contradict each other.
    """
    text = os.environ.get("WORLD_SIZE", "").strip()
    if not text:
        _check_not_left_alone()
        return 1
    count = _number("WORLD_SIZE", first=1)
    if count > 1:
        _number("RANK", first=0, last=count - 1)
        _number("LOCAL_RANK", first=0, last=count - 1)
        _number("MASTER_PORT", first=1, last=LAST_PORT)
        if not os.environ.get("MASTER_ADDR", "").strip():
            raise ConfigError(f"WORLD_SIZE={text}, but MASTER_ADDR is not set: {ADVICE}")
        if os.environ.get("LOCAL_WORLD_SIZE", "").strip():
            _number("LOCAL_WORLD_SIZE", first=1, last=count)
    return count


def _end_process_group() -> None:
    """Ends torch's process group, and with it the threads that exchange data."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """True if this process is alone or the first of several, or if the variables are wrong."""
    try:
        return process_count() == 1 or int(os.environ["RANK"]) == 0
    except ConfigError:
        return True


def let_first_process_report() -> None:
    """Lets the first process print an error that all processes have.

    The launcher then ends the others, which wait here. A process that is still here afterwards has
    an error of its own to print.
    """
    if not is_first_process():
        time.sleep(REPORTING_TIME)


def follow_quietly(events: Iterable[object]) -> None:
    """Consumes a run's events in a process that prints nothing.

    After Ctrl-C the first process decides when to stop; the others end when it has.

    Raises:
        KeyboardInterrupt: the first process stopped after Ctrl-C.
    """
    interrupted = False

    def note_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    signal.signal(signal.SIGINT, note_interrupt)
    try:
        for _ in events:
            pass
    except Exception as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise


def load_whole_models() -> None:
    """Has every process load whole models, also under `accelerate launch --use_fsdp`.

    By default that launcher tells transformers that FSDP will fill the models of all processes but
    the first of a machine. Nothing would do so here: text encoders and rewards are not sharded.
    """
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def _number(name: str, first: int, last: int | None = None) -> int:
    """The whole number in an environment variable, from `first` to `last`."""
    text = os.environ.get(name, "").strip()
    if (
        text.isascii()
        and text.isdigit()
        and first <= int(text)
        and (last is None or int(text) <= last)
    ):
        return int(text)
    limits = f"from {first} to {last}" if last is not None else f"from {first} on"
    found = f"{name}={text!r} is not" if text else f"{name} is not set to"
    size = "" if name == "WORLD_SIZE" else f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but "
    raise ConfigError(f"{size}{found} a whole number {limits}: {ADVICE}")


def _check_not_left_alone() -> None:
    """Without a GPU, `accelerate launch --num_processes 2` starts one process and no second."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if launched and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "accelerate was asked for several processes and started one: "
            "add --multi_gpu to `accelerate launch`, also where there is no GPU"
        )


def _device_kind(device: str) -> str:
    """The kind of device on which several processes run, such as "cuda".

    Raises:
        ConfigError: the device is unknown or not here, names one of several, or there are too few.
    """
    import torch

    here = available_devices()
    name = accelerator() or "cpu" if device == AUTO else device
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ConfigError(
            f"device {device!r} is unknown; this machine has: {', '.join(here)}"
        ) from error
    if ":" in device:
        raise ConfigError(
            f"device {device} names one device for several processes: "
            f"say {kind}, and each takes its own"
        )
    count = int(os.environ.get("LOCAL_WORLD_SIZE") or "1")
    if kind == "cuda" and torch.cuda.device_count() < count:
        raise ConfigError(
            f"{count} processes on this machine need a GPU each; it has {torch.cuda.device_count()}"
        )
    if kind != "cuda" and not any(one.partition(":")[0] == kind for one in here):
        raise ConfigError(f"device {device!r} cannot be used; this machine has: {', '.join(here)}")
    return kind


def _own_class(error: DdpoError) -> type[DdpoError]:
    """The class in `ddpo.errors` from which an error's class comes: every process knows it."""
    mine = ddpo.errors.__name__
    return next(kind for kind in type(error).__mro__ if kind.__module__ == mine)
