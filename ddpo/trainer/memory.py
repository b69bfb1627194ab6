"""The memory of a run: bytes of each part, bytes of the machine, advice if they do not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor

from ddpo.errors import DdpoError, MemoryExhausted, one_line
from ddpo.policies.policy import Policy
from ddpo.text import byte_size
from ddpo.trainer.sharding import local

__all__ = [
    "Activations",
    "MemoryParts",
    "enough_memory",
    "frozen_tensors",
    "is_out_of_memory",
    "memory_parts",
    "total_memory",
]

BYTES_PER_MB: Final = 10**6

REFUSALS: Final = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
)
"""Words in a `RuntimeError` about memory: of a GPU's libraries, PyTorch on the CPU, C++, oneDNN."""


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes of each part of a run's memory, in the order in which they are reported."""

    weights: int  # not trained: denoiser, text encoders, autoencoder, wherever they are
    trained: int  # LoRA, or the denoiser when all of it is trained
    gradients: int
    optimizer: int  # AdamW's two moments
    activations: int  # kept for the backward pass of one training call
    latents: int  # denoising paths of one iteration
    reward: int  # by the reward's card
    reward_leaves: bool = False  # True if the reward is off the device during an update

    @property
    def total(self) -> int:
        """Largest sum of the parts that are there at the same time, in sampling or in an update."""
        both = self.weights + self.trained + self.optimizer + self.latents
        update = self.gradients + self.activations
        return both + (max(self.reward, update) if self.reward_leaves else self.reward + update)

    def text(self) -> str:
        """The parts in words, without those that take nothing."""
        named = [
            (field.name, getattr(self, field.name))
            for field in fields(self)
            if field.name != "reward_leaves"
        ]
        away = " (not during an update)" if self.reward and self.reward_leaves else ""
        return ", ".join(f"{name} {byte_size(size)}" for name, size in named if size) + away


class Activations:
    """Bytes that autograd keeps for the backward pass: each storage once, without parameters."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def counting(self, parameters: Iterable[Tensor]) -> Iterator[None]:
        """Counts inside; the tensors themselves stay as they are.

        Args:
            parameters: tensors that do not count.
        """
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
        self.bytes += sum(one.nbytes() for one in kept)  # 0 for parameters that FSDP freed again


def memory_parts(
    policy: Policy, activations: int, latents: int, reward_mb: float, reward_leaves: bool = False
) -> MemoryParts:
    """The memory of a run on `policy`, part by part.

    Args:
        policy: an adapted policy; modules that are its attributes count as weights.
        activations: bytes that one training call keeps.
        latents: bytes of the denoising paths of one iteration.
        reward_mb: memory of the reward on the policy's device, in 10⁶ bytes.
        reward_leaves: True if the reward is off that device during an update.
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
        reward_leaves=reward_leaves,
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
    """Bytes of memory of a CUDA device, else of the machine; 0 if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return 0


@contextmanager
def enough_memory(batch: int | None) -> Iterator[None]:
    """Around what may need more memory than there is.

    Args:
        batch: `sample.batch`, on which sampling and training depend; None while the model is
            loaded.

    Raises:
        MemoryExhausted: there is not enough; says what to do.
    """
    try:
        yield
    except DdpoError:
        raise
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        raise MemoryExhausted(
            f"there is not enough memory ({one_line(error)[:300]}); {_advice(batch)}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that there was too little memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error).lower() for words in REFUSALS
    )


def _advice(batch: int | None) -> str:
    """Advice for a call of `batch` items that did not fit; None: the model did not."""
    if batch is None:
        return "the model itself does not fit"
    if batch == 1:
        return (
            "sample.batch is 1 already: a larger machine is needed, "
            "or a run with LoRA in place of full finetuning"
        )
    return (
        f"a smaller sample.batch than {batch} needs less, such as --set sample.batch={batch // 2}"
    )
