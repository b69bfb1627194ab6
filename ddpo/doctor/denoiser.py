"""Time, memory and operations of the denoiser alone, run eagerly and compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpo.doctor.measuring import float32_precision, peak_memory_mb, seconds_per_call
from ddpo.policies.policy import TrainablePolicy
from ddpo.rewards.tools.bench import reset_peak_memory

__all__ = ["DenoiserCost", "compiled_cost", "denoiser_cost", "matmul_tflops"]

TERA: Final = 1e12


def matmul_tflops(device: torch.device, dtype: torch.dtype, side: int, tf32: bool = False) -> float:
    """Speed of a square matrix product in 10¹² floating-point operations per second.

    A product of `side` × `side` matrices takes 2 · side³ operations.

    Args:
        device: Torch device.
        dtype: Type of the matrices.
        side: Rows and columns.
        tf32: Whether float32 matrices may be multiplied in TF32.
    """
    generator = torch.Generator(device).manual_seed(0)
    first = torch.randn(side, side, device=device, generator=generator).to(dtype)
    second = torch.randn(side, side, device=device, generator=generator).to(dtype)
    with float32_precision(tf32):
        seconds = seconds_per_call(lambda: first @ second, device, repeats=20, warm_up=5)
    return 2 * side**3 / seconds / TERA


@dataclass(frozen=True, slots=True)
class DenoiserCost:
    """The cost of a sampling call (no gradient) and of a training call (forward and backward)."""

    items: int  # denoiser inputs of the call; guidance makes two of each image
    forward_s: float
    training_s: float
    forward_flops: int  # counted, of the whole call
    training_flops: int
    peak_mb: float

    def forward_tflops(self) -> float:
        """Speed of the sampling call in 10¹² operations per second."""
        return self.forward_flops / self.forward_s / TERA

    def training_tflops(self) -> float:
        """Speed of the training call in 10¹² operations per second."""
        return self.training_flops / self.training_s / TERA


def denoiser_cost(policy: TrainablePolicy, items: int) -> DenoiserCost:
    """The cost of one call of an adapted policy's denoiser, run eagerly.

    FLOPs are those of matrix products, convolutions and attention, as
    `torch.utils.flop_counter` counts them for one item.
    """
    forward_flops, training_flops = (items * _flops(call) for call in _calls(policy, 1))
    forward, training = _calls(policy, items)
    reset_peak_memory(str(policy.device))
    forward_s = seconds_per_call(forward, policy.device)
    training_s = seconds_per_call(training, policy.device)
    peak = peak_memory_mb(policy.device)
    return DenoiserCost(items, forward_s, training_s, forward_flops, training_flops, peak)


def compiled_cost(policy: Any, items: int) -> tuple[float, float]:
    """Seconds of a sampling call and of a training call after `torch.compile` of the UNet.

    The policy's UNet stays compiled.
    """
    policy.unet.compile()
    forward, training = _calls(policy, items)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the compiler's advice about diffusers' code
        forward_s = seconds_per_call(forward, policy.device)
        training_s = seconds_per_call(training, policy.device)
    torch.compiler.reset()
    return forward_s, training_s


def _calls(policy: TrainablePolicy, items: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A sampling call and a training call of the denoiser on the same inputs."""
    device = policy.device
    generator = torch.Generator(device).manual_seed(0)
    shape = (items, *policy.latent_shape)
    latents = torch.randn(shape, device=device, generator=generator).to(policy.storage_dtype)
    steps = torch.full((items,), 500, device=device)
    conditioning = policy.encode(["a photo of a cat"] * items)

    def forward() -> Tensor:
        with torch.no_grad():
            return policy.predict(latents, steps, conditioning)

    def training() -> None:
        policy.predict(latents, steps, conditioning).square().mean().backward()
        for _, parameter in policy.trainable_parameters():
            parameter.grad = None

    return forward, training


def _flops(call: Callable[[], Any]) -> int:
    """The operations of a call, with attention as plain products, as fused kernels count as 0."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return int(counter.get_total_flops())
