"""A third-party model other than Stable Diffusion: one convolution on images of 8×8.

It is conditioned on the sum of the letters of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ddpo.errors import ConfigError
from ddpo.io.tensors import load_tensors, save_tensors
from ddpo.policies.checkpoints.folder import CheckpointInfo, write_facts
from ddpo.policies.policy import LoraSettings
from ddpo.policies.transition import NoiseSchedule

WEIGHTS = "tiny.safetensors"


class TinyPolicy:
    """A denoiser without a latent space, whose latents are the images."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.model = "test/tiny"
        self.latent_shape = (3, 8, 8)
        self.device = torch.device(device)
        self.storage_dtype = dtype
        signal = torch.linspace(0.999, 0.01, 100, dtype=torch.float64)
        self.schedule = NoiseSchedule(signal, 1.0, "epsilon", "leading", 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Conv2d(4, 3, 3, padding=1).to(self.device).requires_grad_(False)
        self.base = deepcopy(self.net)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """One number per text, `[batch, 1, 1]`."""
        numbers = [sum(map(ord, text)) % 97 / 97 for text in texts]
        return torch.tensor(numbers, device=self.device).view(-1, 1, 1)

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """The predicted noise, of the shape of the latents."""
        condition = (conditioning + timesteps.view(-1, 1, 1) / 100).unsqueeze(1)
        channel = condition.expand(-1, 1, *self.latent_shape[1:])
        output: Tensor = self.net(torch.cat([latents.float(), channel.float()], 1))
        return output

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        return (latents.float() / 2 + 0.5).clamp(0, 1)

    def trainable_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters of the convolution, after `adapt`."""
        return (pair for pair in self.net.named_parameters() if pair[1].requires_grad)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """A context in which the convolution is the untrained one."""
        tuned = self.net
        self.net = self.base
        try:
            yield
        finally:
            self.net = tuned

    def adapt(self, kind: Literal["lora", "full"], lora: LoraSettings | None = None) -> None:
        """Enables full finetuning, the only kind."""
        if kind != "full":
            raise ConfigError("test/tiny has no adapters: set adapt.kind=full")
        self.net.requires_grad_(True)

    def save(self, folder: Path, iteration: int) -> None:
        """Saves the weights in one file."""
        tensors = {name: parameter.detach() for name, parameter in self.trainable_parameters()}
        save_tensors(folder / WEIGHTS, tensors, {})
        write_facts(folder, self.model, "full", iteration, weights=WEIGHTS)

    def load(self, checkpoint: CheckpointInfo) -> None:
        """Loads the weights of a checkpoint."""
        self.adapt("full")
        self.net.load_state_dict(load_tensors(checkpoint.folder / WEIGHTS)[0])
