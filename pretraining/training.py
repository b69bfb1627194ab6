"""The training loop of the embedded model: settings, processes, optimizers, progress."""

import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ddpo.io.tensors import load_tensors, optimizer_tensors, restore_optimizer, save_tensors
from ddpo.text import duration
from pretraining.muon import Muon

NOT_MATRIX: Final = re.compile("embed|conv_in|conv_out")
"""Names of parameters that AdamW trains although they have several axes."""
STAGES: Final = {"autoencoder": 1, "latents": 2, "denoiser": 3, "flow": 4}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one stage of pretraining."""

    work: Path
    seed: int
    processes: int
    device: str
    steps: int
    batch: int  # over all processes
    font: Path | None
    world: str = "emoji"  # of `pretraining.worlds`
    start: Path | None = None  # pipeline folder whose weights training starts from
    save_every: int = 500  # steps

    def rates(self, matrices: float, others: float) -> tuple[float, float]:
        """Learning rates of Muon and AdamW, halved where training starts from trained weights."""
        factor = 0.5 if self.start else 1.0
        return matrices * factor, others * factor

    def is_saved(self, step: int) -> bool:
        """True for the number of finished steps after which training is saved."""
        return step % self.save_every == 0 or step == self.steps

    def rng(self, stage: str, step: int, rank: int) -> np.random.Generator:
        """The random generator of one step of a process."""
        return np.random.default_rng([self.seed, STAGES[stage], step, rank])


@dataclass(slots=True)
class Process:
    """The rank of this process and the number of processes."""

    rank: int
    world: int

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Sums a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def average_gradients(self, params: list[nn.Parameter]) -> None:
        """Averages the gradients of parameters over all processes."""
        if self.world == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for param, part in zip(params, flat.split([p.numel() for p in params]), strict=True):
            param.grad = part.view_as(param)


class Trainer:
    """Training with Muon for matrices, AdamW for other parameters, and averaged weights (EMA).

    The rate is constant, then decays linearly over the last 40 % of the steps.

    Args:
        modules: Modules to train, by name.
        process: This process.
        settings: Settings of the stage.
        rates: Learning rates of Muon and AdamW.
        ema: Decay of the averaged weights.
    """

    def __init__(
        self,
        modules: nn.ModuleDict,
        process: Process,
        settings: Settings,
        rates: tuple[float, float],
        ema: float,
    ) -> None:
        self.modules = modules
        self.process = process
        self.settings = settings
        self.ema_decay = ema
        named = [(name, p) for name, p in modules.named_parameters() if p.requires_grad]
        self.params = [p for _, p in named]
        matrices = [p for name, p in named if p.ndim >= 2 and not NOT_MATRIX.search(name)]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.params if id(p) not in chosen]
        self.rates = rates
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=rates[0], share=(process.rank, process.world, process.all_reduce)),
            torch.optim.AdamW(others, lr=rates[1], betas=(0.9, 0.99), weight_decay=0.0),
        ]
        self.average = {name: p.detach().clone() for name, p in named}
        self.step = 0

    def update(self, loss: torch.Tensor) -> None:
        """Takes one optimizer step on a loss, and updates the averaged weights."""
        for param in self.params:
            param.grad = None
        loss.backward()
        self.process.average_gradients(self.params)
        nn.utils.clip_grad_norm_(self.params, 1.0)
        progress = self.step / self.settings.steps
        factor = min(1.0, (self.step + 1) / 50) * min(1.0, (1 - progress) / 0.4)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
        self.step += 1
        decay = min(self.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for name, param in self.modules.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(param.detach(), 1 - decay)

    def save(self, path: Path) -> None:
        """Writes weights, averaged weights and optimizer state, in the first process only."""
        if self.process.rank:
            return
        tensors = _with_prefix("model.", self.modules.state_dict())
        tensors |= _with_prefix("ema.", self.average)
        for index, optimizer in enumerate(self.optimizers):
            tensors |= _with_prefix(f"{index}.", optimizer_tensors(optimizer))
        save_tensors(path, tensors, {"step": str(self.step)})

    def load(self, path: Path) -> None:
        """Restores the state from a file of `save`, if there is one."""
        if not path.exists():
            return
        tensors, metadata = load_tensors(path)
        self.modules.load_state_dict(_of_prefix("model.", tensors))
        self.average = _of_prefix("ema.", tensors)
        for index, optimizer in enumerate(self.optimizers):
            restore_optimizer(optimizer, _of_prefix(f"{index}.", tensors))
        self.step = int(metadata["step"])


def _with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _of_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names start with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


class Log:
    """Progress lines with mean losses since the last line, samples per second and time left.

    Args:
        settings: Settings of the stage.
        start: Number of steps finished before this process started.
        every: Number of steps between two lines.
    """

    def __init__(self, settings: Settings, start: int, every: int = 50) -> None:
        self.settings = settings
        self.start = start
        self.every = every
        self.started = time.perf_counter()
        self.sums: dict[str, float] = {}

    def add(self, step: int, **values: torch.Tensor) -> None:
        """Adds the values of one step, and prints a line if one is due."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        if step % self.every:
            return
        per_step = (time.perf_counter() - self.started) / (step - self.start)
        means = "  ".join(f"{name} {total / self.every:.4f}" for name, total in self.sums.items())
        speed = f"{self.settings.batch / per_step:.0f}/s"
        left = duration((self.settings.steps - step) * per_step)
        sys.stdout.write(f"step {step}/{self.settings.steps}  {means}  {speed}  {left} left\n")
        sys.stdout.flush()
        self.sums.clear()


def ema_weights(path: Path, part: str) -> dict[str, torch.Tensor]:
    """The averaged weights of one component (`vae`, `unet`, `text_encoder`) of a stage's file.

    Buffers, which have no average, are those of the model.
    """
    tensors, _ = load_tensors(path)
    return _of_prefix(f"model.{part}.", tensors) | _of_prefix(f"ema.{part}.", tensors)
