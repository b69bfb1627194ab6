"""The memory of a run by part: what each part takes, and how much there is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ddpo.policies.policy import Policy
from ddpo.text import byte_size
from ddpo.trainer.sharding import local

__all__ = [
    "Activations",
    "MemoryParts",
    "frozen_tensors",
    "memory_parts",
    "total_memory",
]

BYTES_PER_MB = 10**6


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes of each part of a run's memory, in the order of the plan."""

    weights: int  # that are not trained: denoiser, text encoders, autoencoder, wherever they lie
    trained: int  # LoRA, or the denoiser when all of it is trained
    gradients: int
    optimizer: int  # AdamW's two moments
    activations: int  # kept for the backward pass of one training call
    latents: int  # paths of one iteration
    reward: int  # by the reward's card

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(getattr(self, field.name) for field in fields(self))

    def text(self) -> str:
        """The parts in words, without those that take nothing."""
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(f"{name} {byte_size(size)}" for name, size in named if size)


class Activations:
    """Bytes that autograd keeps for the backward pass: each storage once, parameters not counted."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def counting(self, parameters: Iterable[Tensor]) -> Iterator[None]:
        """Counts within; the tensors themselves are left as they are."""
        seen = {local(parameter).untyped_storage()._cdata for parameter in parameters}
        kept = []

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                kept.append(storage)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield
        self.bytes += sum(one.nbytes() for one in kept)  # 0 for parameters that FSDP let go again


def memory_parts(policy: Policy, activations: int, latents: int, reward_mb: float) -> MemoryParts:
    """The parts of a run on `policy`.

    Args:
        policy: the policy, adapted; modules that are its attributes count as weights.
        activations: bytes that one training call keeps.
        latents: bytes of the paths of one iteration.
        reward_mb: memory of the reward on the policy's device, in 10⁶ bytes.
    """
    trained = sum(_bytes(parameter) for _, parameter in policy.trainable_parameters())
    frozen = sum(_bytes(tensor) for tensor in frozen_tensors(policy))
    return MemoryParts(
        weights=frozen,
        trained=trained,
        gradients=trained,
        optimizer=2 * trained,
        activations=activations,
        latents=latents,
        reward=int(reward_mb * BYTES_PER_MB),
    )


def frozen_tensors(policy: Policy) -> Iterator[Tensor]:
    """Every parameter and buffer of the policy's modules that is not trained, once."""
    seen = {id(parameter) for _, parameter in policy.trainable_parameters()}
    for module in vars(policy).values():
        if not isinstance(module, torch.nn.Module):
            continue
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _bytes(tensor: Tensor) -> int:
    own = local(tensor)
    return own.numel() * own.element_size()


def total_memory(device: torch.device) -> int:
    """Bytes of memory of a CUDA device, else of the machine; 0 where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return 0
