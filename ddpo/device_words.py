"""Names of torch devices, and those that this machine cannot have, without importing torch."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from ddpo.devices import AUTO
from ddpo.errors import ConfigError

__all__ = ["check_device_name", "has_gpu_files"]

DEVICES: Final = re.compile(
    r"(cpu|cuda|ipu|xpu|mkldnn|opengl|opencl|ideep|hip|ve|fpga|maia|xla|lazy|vulkan|mps|meta|hpu"
    r"|mtia|npu|musa|privateuseone)(:\d+)?"
)
"""Devices that torch or an extension of it can know."""

GPU_FILES: Final = ("nvidia[0-9]*", "nvidiactl", "nvgpu", "nvhost-*", "nvmap", "dxg", "kfd")
"""Device files of NVIDIA's drivers (also of Tegra boards), of WSL and of AMD's ROCm in /dev."""

HIDDEN: Final = ("", "-1")
"""Values of CUDA_VISIBLE_DEVICES that hide every GPU."""


def check_device_name(device: str | None) -> None:
    """Refuses a word that is no torch device, or is one that this machine cannot have.

    None and "auto" pass. Where torch is loaded already, `ddpo.devices` decides.

    Raises:
        ConfigError: The word is none, or the machine has no such device.
    """
    if device is None or device == AUTO:
        return
    if not DEVICES.fullmatch(device):
        raise ConfigError(
            f"device {device!r} cannot be used: give auto, cpu, cuda, cuda:1, mps or xpu"
        )
    if "torch" not in sys.modules and (reason := _reason_of_absence(device.partition(":")[0])):
        raise ConfigError(f"device {device!r} cannot be used: {reason}; give auto or cpu")


def _reason_of_absence(kind: str) -> str | None:
    """A reason why this machine cannot have a device; None if only torch can tell."""
    if kind == "mps" and sys.platform != "darwin":
        return "mps is the GPU of Apple's computers"
    if kind == "cuda" and sys.platform == "darwin":
        return "this computer has no CUDA"
    if kind == "cuda" and os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in HIDDEN:
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if kind in ("cuda", "xpu") and _built_for_the_cpu():
        return "the installed torch is built for the CPU alone"
    if kind in ("cuda", "xpu") and sys.platform == "linux" and not has_gpu_files(kind):
        return "this machine has no such GPU, or its driver is not loaded"
    return None


def _built_for_the_cpu() -> bool:
    """True for a build of torch without any accelerator, by its version."""
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def has_gpu_files(kind: str) -> bool:
    """True if a driver's device file is there; without /dev nothing can be said."""
    folder = Path("/dev")
    if not folder.is_dir():
        return True
    patterns = GPU_FILES if kind == "cuda" else ("dri", "dxg")
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)
