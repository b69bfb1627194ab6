"""A pretended accelerator without values: fake tensors on a device named "pretend".

`pretend()` registers the device with torch for the rest of the process; use a process of its own.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

DEVICE: Final = "pretend"
aten = torch.ops.aten
READS: Final = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.bincount,
}
"""Operators for whose result the host waits on CUDA."""


class _Backend(_DummyBackendModule):
    """Torch's stand-in, with the precisions of autocast."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """As CUDA."""
        return [torch.float16, torch.bfloat16]


class Fakes(TorchDispatchMode):
    """Makes tensors that have values fake before torch would compute with them."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator on fakes; the fake mode makes those of `torch.tensor`, with values."""
        if func.overloadpacket in (aten.lift, aten.lift_fresh):
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map_only(Tensor, self._fake, (args, kwargs or {}))
        if func.overloadpacket is aten._to_copy and _type(kwargs.get("device")) == DEVICE:
            args[0].constant = None  # of a single number the fake mode would make a real copy there
        if func.overloadpacket is aten._pin_memory:
            copy = args[0].clone()
            copy.pinned = True
            return copy
        return func(*args, **kwargs)

    def _fake(self, tensor: Tensor) -> Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self.mode.from_tensor(tensor)


class Waiting(AssertionError):
    """The host waits for the device where it must not."""


class NoFloat64(TorchDispatchMode):
    """Raises `TypeError` for float64 tensors on the device, as Apple's MPS does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator, then looks at its result."""
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and one.device.type == DEVICE and one.dtype == torch.float64:
                raise TypeError(f"float64 on the device, by {func}")
        return result


class NoWaiting(TorchDispatchMode):
    """Raises `Waiting` where the host would wait for the device: reads and blocking copies."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at the operator, then runs it."""
        if _waits(func, args, kwargs or {}):
            raise Waiting(f"{func} in {_place()}")
        return func(*args, **(kwargs or {}))


def _waits(func: Any, args: Any, kwargs: Any) -> bool:
    packet = func.overloadpacket
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    if not any(one.device.type == DEVICE for one in tensors):
        to_device = packet is aten._to_copy and _type(kwargs.get("device")) == DEVICE
        return to_device and not (kwargs.get("non_blocking") and getattr(args[0], "pinned", False))
    if packet in READS:
        return True
    if packet is aten._to_copy:
        return _type(kwargs.get("device")) == "cpu"
    if packet is aten.copy_:
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        return args[0].device.type != args[1].device.type and (
            blocking or args[0].device.type == "cpu"
        )
    if packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        places = [one for one in args[1] if one is not None]
        return any(one.dtype == torch.bool or one.device.type == "cpu" for one in places)
    return False


def _type(device: Any) -> str:
    return "" if device is None else torch.device(device).type


def _place() -> str:
    frames = [frame for frame in traceback.extract_stack() if "/ddpo/" in frame.filename]
    return f"{frames[-1].filename.rpartition('/ddpo/')[2]}:{frames[-1].lineno}" if frames else "?"


def _assign(
    self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """`Module._apply` that replaces parameters by new ones, since fake ones cannot be changed."""
    for child in self.children() if recurse else ():
        child._apply(function)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = function(parameter)
            if moved is not parameter:
                self._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = function(buffer)
    return self


LOW_PRECISION: Final = (
    "conv2d",
    "linear",
    "matmul",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "scaled_dot_product_attention",
)
FLOAT32: Final = ("layer_norm", "group_norm", "native_layer_norm", "softmax.int")
"""Operators that autocast runs in low precision, and in float32.

Source: torch's "CUDA Ops that can autocast".
"""


def _cast(operator: Any, low: bool) -> Callable[..., Any]:
    """The operator on arguments of the precision in which autocast runs it."""
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(DEVICE) if low else torch.float32
        with torch._C._ExcludeDispatchKeyGuard(key):
            args, kwargs = tree_map_only(
                Tensor,
                lambda one: one.to(dtype) if one.is_floating_point() else one,
                (args, kwargs),
            )
            return operator(*args, **kwargs)

    return run


def _register() -> list[torch.library.Library]:
    """Makes the device and its autocast known to torch; what it gives is to be kept."""
    _setup_privateuseone_for_python_backend(DEVICE, backend_module=_Backend())
    others = torch.library.Library("_", "IMPL")
    ours = torch.library.Library("aten", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in (*LOW_PRECISION, *FLOAT32):
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(aten, packet), overload or "default")
        ours.impl(name, _cast(operator, name in LOW_PRECISION), "AutocastPrivateUse1")
    return [others, ours]


_registered: list[torch.library.Library] = []


@contextmanager
def pretend(float64: bool = True) -> Iterator[None]:
    """Inside, tensors are fake, and "pretend" is a device.

    Args:
        float64: Whether the device has it, as CUDA does; without, it stands for MPS.
    """
    if not _registered:
        _registered.extend(_register())
    apply = nn.Module._apply
    nn.Module._apply = _assign  # type: ignore[assignment, method-assign]
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(
        True
    )  # `torch.tensor(…, device=…)` makes a tensor on the CPU and moves it
    try:
        with (
            FakeTensorMode(allow_non_fake_inputs=True) as mode,
            Fakes(mode),
            nullcontext() if float64 else NoFloat64(),
        ):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
        nn.Module._apply = apply  # type: ignore[method-assign]
