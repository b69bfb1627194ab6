"""The processors and torch devices of this machine."""

from __future__ import annotations

import os
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
    "places_matter",
    "processors",
    "resolve_device",
    "synchronize",
]

AUTO: Final = "auto"
"""Name of the accelerator of this machine, else of the CPU."""

FLOAT64_DEVICES: Final = ("cpu", "cuda")
"""Apple's MPS has no float64, nor have most of Intel's GPUs (XPU)."""


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerator() -> str | None:
    """The kind of this machine's accelerator: "cuda", "xpu" or "mps"; None without one."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if found is None else found.type


def places_matter(device: torch.device) -> bool:
    """True if a row of a batch may have other bits at another place in the batch.

    It has on an H100, for the denoiser of Stable Diffusion 1.5. It has none on a CPU with one
    thread; several threads that share a product may round the last bit otherwise.
    """
    return device.type != "cpu"


def synchronize(device: torch.device) -> None:
    """Waits until an accelerator has finished its queued work; returns at once on the CPU."""
    import torch

    if device.type != "cpu" and device.type == accelerator():
        torch.accelerator.synchronize(device)


def resolve_device(device: str) -> str:
    """The torch device of a name: "auto" becomes this machine's accelerator, else the CPU.

    Raises:
        ConfigError: This machine has no such device; the message lists those it has.
    """
    if device == AUTO:
        return accelerator() or "cpu"
    check_device(device)
    return device


def fast_dtype(device: str) -> str:
    """The fast precision of a device: float32 on the CPU, bfloat16 or else float16 on a GPU."""
    import torch

    kind = torch.device(device).type
    if kind == "cpu":
        return "float32"
    return "float16" if kind == "cuda" and not torch.cuda.is_bf16_supported() else "bfloat16"


def check_device(device: str) -> None:
    """Raises unless tensors can be created on a device and read back.

    Args:
        device: A torch device, such as "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: This machine has no such device; the message lists those it has.
    """
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"device {device!r} has no free memory") from error
    except Exception as error:  # each back end raises its own class
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
    """A copy of a CPU tensor on `device`, made from pinned memory so that the host does not wait.

    On the CPU and on MPS, which has no memory of its own, the copy is an ordinary one.
    """
    if device.type in ("cpu", "mps"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def for_float64(tensor: Tensor) -> Tensor:
    """The tensor on a device with float64: its own, or else the CPU. Differentiable."""
    return tensor if tensor.device.type in FLOAT64_DEVICES else tensor.cpu()


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its own device, or else on the CPU. Differentiable."""
    return for_float64(tensor).double()
