"""The command and the resumable loop that the judges' training modules share.

`python -m pretraining.JUDGE --out FOLDER --steps N --minutes M` trains until step N at the latest,
stops after M minutes, and resumes from `FOLDER/training.safetensors`. Each step's data are keyed by
seed, judge and step. The learning rate decays over the last 40 % of the N steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ddpo.errors import ConfigError
from ddpo.io.atomic import write_json
from ddpo.io.json_files import read_json
from pretraining.scene_batches import Augmentation, Reconstructions
from pretraining.scene_renderer import SceneRenderer
from pretraining.training import Log, Process, Settings, Trainer

__all__ = ["JUDGES", "JudgeRun", "Losses", "arguments", "train"]

JUDGES: Final = {
    "dual_encoder": 11,
    "captioner": 12,
    "sentence_encoder": 13,
    "aesthetic_head": 14,
    "scene_detector": 15,
}
"""Judge → key of its random data."""
SAVED_EVERY: Final = 100  # steps
Losses = Callable[[np.random.Generator, int], Mapping[str, Tensor]]
"""Function of a step's generator and a batch size that returns "loss", and further values."""


@dataclass(frozen=True, slots=True)
class JudgeRun:
    """The place and length of a judge's training.

    Args:
        judge: Name of the judge, of `JUDGES`.
        out: Folder of the training state and the finished judge.
        steps: Planned number of steps, which sets the decay of the learning rate.
        batch: Batch size.
        minutes: Time limit of this call; None for no limit.
        seed: Seed of weights and data.
        font: Noto Color Emoji file; None for the installed one.
        bank_size: Number of renderings that pass the autoencoder.
    """

    judge: str
    out: Path
    steps: int
    batch: int
    minutes: float | None = None
    seed: int = 0
    font: Path | None = None
    bank_size: int = 3000

    def rng(self, step: int) -> np.random.Generator:
        """The generator of one step's data."""
        return np.random.default_rng([self.seed, JUDGES[self.judge], step])

    def bank(self, renderer: SceneRenderer, augmentation: Augmentation) -> Reconstructions | None:
        """The bank of reconstructions of this judge's images; None where its size is 0."""
        if not self.bank_size:
            return None
        seed = 100 * self.seed + JUDGES[self.judge]
        file = self.out / "reconstructions.safetensors"
        return Reconstructions(file, renderer, self.bank_size, seed, augmentation)


def arguments(judge: str, description: str | None, steps: int, batch: int) -> JudgeRun:
    """The run of a command line with the given default length and batch size."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of state and judge")
    parser.add_argument("--steps", type=int, default=steps, help="planned number of steps")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--minutes", type=float, default=None, help="time limit of this call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--font", type=Path, default=None)
    given = parser.parse_args()
    return JudgeRun(
        judge, given.out, given.steps, given.batch, given.minutes, given.seed, given.font
    )


def train(
    run: JudgeRun, modules: nn.ModuleDict, losses: Losses, rates: tuple[float, float]
) -> list[float]:
    """Trains the modules, and leaves their averaged weights in them.

    Args:
        run: Place and length of the training.
        modules: Modules to train, by name.
        losses: Loss of a batch and further values for the progress lines.
        rates: Learning rates of Muon and AdamW.

    Returns:
        The losses of this call's steps.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(run.out, run.seed, 1, "cpu", run.steps, run.batch, run.font)
    trainer = Trainer(modules, Process(0, 1), settings, rates, ema=0.998)
    path = run.out / "training.safetensors"
    _check_state(run)
    trainer.load(path)
    modules.train()
    log = Log(settings, trainer.step)
    started = time.monotonic()
    seen: list[float] = []
    while trainer.step < run.steps and not _is_over(run, started):
        values = losses(run.rng(trainer.step), run.batch)
        trainer.update(values["loss"])
        seen.append(float(values["loss"].detach()))
        log.add(trainer.step, **{name: value.detach() for name, value in values.items()})
        if trainer.step % SAVED_EVERY == 0:
            trainer.save(path)
    trainer.save(path)
    with torch.no_grad():
        for name, parameter in modules.named_parameters():
            if name in trainer.average:
                parameter.copy_(trainer.average[name])
    modules.eval()
    say(f"{run.judge}: {trainer.step} of {run.steps} steps, {len(seen)} of them now")
    return seen


def _check_state(run: JudgeRun) -> None:
    """Compares the run with the one whose state is in its folder, which it may only prolong.

    Raises:
        ConfigError: The folder is of another judge, seed or batch size.
    """
    path = run.out / "run.json"
    facts = {"judge": run.judge, "seed": run.seed, "batch": run.batch}
    if (run.out / "training.safetensors").exists() and path.exists():
        before = read_json(path)
        if before != facts:
            raise ConfigError(f"{run.out} holds the training of {before}, not of {facts}")
    write_json(path, facts)


def _is_over(run: JudgeRun, started: float) -> bool:
    return run.minutes is not None and time.monotonic() - started > 60 * run.minutes


def say(line: str) -> None:
    """Prints one line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def half(module: Any) -> Any:
    """The module in half precision, as judges are stored."""
    return module.to(dtype=torch.float16)


def megabytes(folder: Path) -> float:
    """The size of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
