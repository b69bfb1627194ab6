"""The torch devices of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ddpo.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "AUTO",
    "accelerator",
    "available_devices",
    "check_device",
    "fast_dtype",
    "for_float64",
    "in_float64",
    "moved",
    "resolve_device",
    "synchronize",
]

AUTO: Final = "auto"
"""Stands for the accelerator that is here, else the CPU."""

FLOAT64_DEVICES: Final = ("cpu", "cuda")
"""Apple's MPS has no float64, nor have most of Intel's GPUs (XPU)."""


def accelerator() -> str | None:
    """The kind of the accelerator that is here: "cuda", "xpu" or "mps"; None without one."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if found is None else found.type


def synchronize(device: torch.device) -> None:
    """Waits until an accelerator has done all that it was given; on the CPU there is nothing to wait for."""
    import torch

    if device.type != "cpu" and device.type == accelerator():
        torch.accelerator.synchronize(device)


def resolve_device(device: str) -> str:
    """The torch device of a name: "auto" is the accelerator that is here, else the CPU.

    Raises:
        ConfigError: There is no such device here; the message lists those that there are.
    """
    if device == AUTO:
        return accelerator() or "cpu"
    check_device(device)
    return device


def fast_dtype(device: str) -> str:
    """The precision that suits a device: float32 on the CPU, else bfloat16, or float16 on a GPU without it."""
    import torch

    kind = torch.device(device).type
    if kind == "cpu":
        return "float32"
    return "float16" if kind == "cuda" and not torch.cuda.is_bf16_supported() else "bfloat16"


def check_device(device: str) -> None:
    """Makes sure that tensors can be made on a device and read back.

    Args:
        device: A torch device, such as "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: There is no such device here; the message lists those that there are.
    """
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"device {device!r} has no free memory") from error
    except Exception as error:  # each back end has its own
        here = ", ".join(available_devices())
        raise ConfigError(f"device {device!r} cannot be used; this machine has: {here}") from error


def available_devices() -> tuple[str, ...]:
    """Names of the devices that torch can use on this machine, the CPU first."""
    import torch

    found = ["cpu"]
    for kind in ("cuda", "xpu"):
        found += [f"{kind}:{index}" for index in range(getattr(torch, kind).device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return tuple(found)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`. The host does not wait for the copy: it starts from pinned memory.

    On the CPU, and on MPS, which has no memory of its own, it is an ordinary copy.
    """
    if device.type in ("cpu", "mps"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def for_float64(tensor: Tensor) -> Tensor:
    """The tensor where float64 works: on its own device, or else on the CPU. Differentiable."""
    return tensor if tensor.device.type in FLOAT64_DEVICES else tensor.cpu()


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its own device, or else on the CPU. Differentiable."""
    return for_float64(tensor).double()
