"""Times and memory on an accelerator, where calls return before the work is done."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ddpo.devices import synchronize
from ddpo.rewards.tools.bench import process_peak_mb

__all__ = ["float32_precision", "peak_memory_mb", "seconds_per_call"]


def seconds_per_call(
    call: Callable[[], Any],
    device: torch.device,
    repeats: int = 5,
    warm_up: int = 2,
) -> float:
    """The median time of a call in seconds, with all of its work done.

    Args:
        call: Function to time.
        device: Torch device that it uses.
        repeats: Number of timed calls.
        warm_up: Number of calls before them, which load and choose kernels.
    """
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory_mb(device: torch.device) -> float:
    """The peak memory since `ddpo.rewards.tools.bench.reset_peak_memory`, in units of 10⁶ bytes.

    On an accelerator it is what torch allocated there; on a CPU it is that of this process.
    """
    if device.type == "cpu":
        return process_peak_mb()
    return torch.accelerator.max_memory_allocated(device) / 1e6


@contextmanager
def float32_precision(tf32: bool) -> Iterator[None]:
    """A block that sets the precision of float32 products.

    Args:
        tf32: TF32 where the device has it; otherwise float32.
    """
    product = torch.get_float32_matmul_precision()
    convolution = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(product)
        torch.backends.cudnn.allow_tf32 = convolution
