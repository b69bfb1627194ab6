"""The protocols of a model: `Policy`, and `TrainablePolicy` with weights to train, save and load.

A policy is a denoiser seen as π(x_{t-1} | x_t, c), with its text encoder, decoder and noise
schedule.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Parameter

from ddpo.errors import ConfigError
from ddpo.policies.checkpoints.folder import CheckpointInfo
from ddpo.policies.checkpoints.lora import ATTENTION
from ddpo.policies.schedule import Schedule

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
    """Low-rank adapters on the denoiser, scaled by `alpha` / `rank` (arXiv 2106.09685).

    Raises:
        ConfigError: The rank or alpha is not positive, or there is no target.
    """

    rank: int = 16
    alpha: int = 16
    targets: tuple[str, ...] = ATTENTION

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise ConfigError(f"LoRA needs rank and alpha above 0 and a target, got {self}")


@runtime_checkable
class Policy(Protocol):
    """A text-to-image model, as sampling, evaluation and an update use it."""

    model: str  # the id or folder it was loaded from
    device: torch.device
    storage_dtype: torch.dtype  # of the latents between steps

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one image's latents: channel, height, width, or as the model packs them."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The noise levels of the model, and the steps of its sampler."""
        ...

    def encode(self, texts: Sequence[str]) -> Any:
        """Text conditioning of a batch; each distinct text is encoded only once.

        It is a tensor `[batch, tokens, width]`, or a `Conditioning` with several.
        """
        ...

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The denoiser's output, float32, of the shape of `latents`.

        It is what `schedule.target` names: noise, velocity or x_0.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Canonical pixels from latents: float32 `[batch, 3, height, width]` in [0, 1]."""
        ...

    def trainable_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Names and parameters that reinforcement learning may change."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """A context in which `predict` is the reference policy: the model before training."""
        ...


@runtime_checkable
class TrainablePolicy(Policy, Protocol):
    """A policy whose weights a run can adapt, save and load."""

    def adapt(self, kind: Literal["lora", "full"], lora: LoraSettings | None = None) -> None:
        """Makes weights trainable: adapters that start as the identity, or all of the denoiser.

        Random values come from torch's global generator, which the trainer seeds.

        Raises:
            ConfigError: The model does not support this kind, or was adapted before.
        """
        ...

    def save(self, folder: Path, iteration: int) -> None:
        """Writes a checkpoint into an existing folder, with the weights as safetensors.

        Its facts are written by `ddpo.policies.checkpoints.policy_file.write_facts`.
        """
        ...

    def load(self, checkpoint: CheckpointInfo) -> None:
        """Loads the weights of a checkpoint of this model, and adapts the model first if necessary.

        Raises:
            CheckpointError: The checkpoint belongs to another model, or its weights do not fit.
        """
        ...


def save_memory(policy: Policy) -> None:
    """Turns on gradient checkpointing, through the policy's method of the same name.

    Raises:
        ConfigError: The policy has no such method.
    """
    method = getattr(policy, "save_memory", None)
    if method is None:
        raise ConfigError(
            f"the model {policy.model!r} keeps all activations: "
            "it cannot be trained with adapt.checkpointing"
        )
    method()


def compile_denoiser(policy: Policy) -> None:
    """Compiles the denoiser for sampling and training, through the policy's method of this name.

    Raises:
        ConfigError: The policy has no such method, or the compiler is not installed.
    """
    check_compiler(policy.device)
    method = getattr(policy, "compile_denoiser", None)
    if method is None:
        raise ConfigError(
            f"the model {policy.model!r} cannot be compiled: leave out compile = true"
        )
    method()


def check_compiler(device: torch.device) -> None:
    """Raises unless torch.compile can run: with a C++ compiler on the CPU, with Triton on CUDA.

    Raises:
        ConfigError: The compiler is not installed.
    """
    has_cpp = os.environ.get("CXX") or any(map(shutil.which, CPP_COMPILERS))
    if device.type == "cpu" and not has_cpp:
        raise ConfigError(
            "compile = true needs a C++ compiler on the CPU, such as g++ or clang++; "
            "install one, or leave it out"
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise ConfigError(
            "compile = true needs Triton on CUDA; install the package triton, or leave it out"
        )
