"""Devices by name: the accelerator that is here, and one short line for a device that is not."""

from __future__ import annotations

from typing import Final

from ddpo.errors import ConfigError

__all__ = ["AUTO", "available_devices", "check_device", "chosen_device", "fast_dtype", "has_float64", "resolve_device"]

AUTO: Final = "auto"
"""Stands for the accelerator that is here, else the CPU."""


def resolve_device(name: str) -> str:
    """The torch device of a name; "auto" is the accelerator that is here, else "cpu".

    Raises:
        ConfigError: no such device, or none here.
    """
    if name == AUTO:
        return available_devices()[0]
    check_device(name)
    return name


def chosen_device(name: str) -> str:
    """`name` unchecked, or for "auto" what `resolve_device` gives: whoever loads something there checks it."""
    return resolve_device(AUTO) if name == AUTO else name


def available_devices() -> list[str]:
    """The kinds of devices that can be used here, the accelerator first and "cpu" last."""
    import torch

    kinds = [torch.accelerator.current_accelerator()] if torch.accelerator.is_available() else []
    return [kind.type for kind in kinds if kind is not None] + ["cpu"]


def check_device(name: str) -> None:
    """Makes sure that a device exists here.

    Raises:
        ConfigError: it does not; says what there is.
    """
    import torch

    here = available_devices()
    known = f"here: {', '.join([AUTO, *here])}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"the device {name!r} cannot be used: torch knows no such device; {known}") from None
    if device.type not in here:
        raise ConfigError(f"the device {name!r} cannot be used: there is none on this machine; {known}")
    count = torch.accelerator.device_count() if device.type != "cpu" else 1
    if device.index is not None and not 0 <= device.index < count:
        last = f"{device.type}:{count - 1}"
        raise ConfigError(f"the device {name!r} cannot be used: the last one is {last}; {known}")


def fast_dtype(device: str) -> str:
    """The precision that suits a device: float32 on the CPU, bfloat16 on an accelerator that has it, else float16."""
    import torch

    kind = torch.device(device).type
    if kind == "cpu":
        return "float32"
    return "float16" if kind == "cuda" and not torch.cuda.is_bf16_supported() else "bfloat16"


def has_float64(device: str) -> bool:
    """Whether a device can hold float64 tensors; Apple's MPS cannot."""
    return device.partition(":")[0] != "mps"
