"""What a model must offer: `Policy`, a denoiser seen as π(x_{t-1} | x_t, c) with its text encoder, decoder and noise schedule; and
`TrainablePolicy`, one whose weights can be changed, written and read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Parameter

from ddpo.errors import ConfigError
from ddpo.policies.checkpoints.folder import CheckpointInfo
from ddpo.policies.checkpoints.lora import ATTENTION
from ddpo.policies.transition import NoiseSchedule

__all__ = [
    "LoraSettings",
    "Policy",
    "TrainablePolicy",
    "check_compiler",
    "compile_denoiser",
    "save_memory",
]


CPP_COMPILERS: Final = ("g++", "clang++", "c++", "cl")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters on the denoiser (arXiv 2106.09685). `alpha` / `rank` scales them.

    Raises:
        ConfigError: the rank is not positive or there is no target.
    """

    rank: int = 16
    alpha: int = 16
    targets: tuple[str, ...] = ATTENTION

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise ConfigError(f"LoRA needs rank and alpha above 0 and a target, got {self}")


@runtime_checkable
class Policy(Protocol):
    """What sampling, evaluation and an update need of a text-to-image model."""

    model: str  # the id or folder that it was loaded from
    latent_shape: tuple[int, int, int]  # channel, height, width
    schedule: NoiseSchedule
    device: torch.device
    storage_dtype: torch.dtype  # in which latents are kept between steps

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Text conditioning `[batch, tokens, width]`; each distinct text is encoded once and kept."""
        ...

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """The denoiser's output (noise, velocity or x_0, as the schedule says) `[batch, channel, height, width]`, float32."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as canonical pixels: float32 `[batch, 3, height, width]` in [0, 1]."""
        ...

    def trainable_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Names and parameters that reinforcement learning may change."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside this context `predict` is the reference policy: the model as it was before training."""
        ...


@runtime_checkable
class TrainablePolicy(Policy, Protocol):
    """What a run needs besides: to begin, to be kept and to be found again."""

    def adapt(self, kind: Literal["lora", "full"], lora: LoraSettings | None = None) -> None:
        """Makes weights trainable, once: adapters that start as the identity, or all of the denoiser. Random values come from torch's
        global generator, which the trainer seeds.

        Raises:
            ConfigError: a kind that this model cannot have, or it was adapted before.
        """
        ...

    def save(self, folder: Path, iteration: int) -> None:
        """Writes a checkpoint into an existing folder: `ddpo.policies.checkpoints.folder.write_facts`, and weights as safetensors."""
        ...

    def load(self, checkpoint: CheckpointInfo) -> None:
        """Takes over a checkpoint of this model, adapting first if that was not done.

        Raises:
            CheckpointError: it belongs to another model, or its weights do not fit.
        """
        ...


def save_memory(policy: Policy) -> None:
    """Makes the denoiser compute activations again in the backward pass instead of keeping them; by its method of this name.

    Raises:
        ConfigError: it does not know how.
    """
    method = getattr(policy, "save_memory", None)
    if method is None:
        raise ConfigError(
            f"the model {policy.model!r} keeps all activations: it cannot be trained with adapt.checkpointing"
        )
    method()


def compile_denoiser(policy: Policy) -> None:
    """Makes torch compile the denoiser, once for sampling and training alike; by its method of this name.

    Raises:
        ConfigError: it does not know how, or what compiles is not installed.
    """
    check_compiler(policy.device)
    method = getattr(policy, "compile_denoiser", None)
    if method is None:
        raise ConfigError(
            f"the model {policy.model!r} cannot be compiled: leave out compile = true"
        )
    method()


def check_compiler(device: torch.device) -> None:
    """Makes sure that torch.compile finds what it needs for a device: a C++ compiler for the CPU, Triton for CUDA.

    Raises:
        ConfigError: it is not installed.
    """
    if (
        device.type == "cpu"
        and not os.environ.get("CXX")
        and not any(map(shutil.which, CPP_COMPILERS))
    ):
        raise ConfigError(
            "compile = true needs a C++ compiler on the CPU, such as g++ or clang++; install one, or leave it out"
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise ConfigError(
            "compile = true needs Triton on CUDA; install the package triton, or leave it out"
        )
