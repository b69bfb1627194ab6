"""Settings of the training in the self-test, on models with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ddpo.trainer.config import TrainConfig
from ddpo.trainer.settings import config_for

__all__ = ["FULL", "RANK", "TINY", "Workload", "run_config"]

RANK: Final = 4  # of the LoRA adapters; that of kvablack/ddpo-pytorch


@dataclass(frozen=True, slots=True)
class Workload:
    """Size of one training iteration."""

    samples: int
    steps: int
    guidance: float
    batches: tuple[int, ...]  # images per call of the denoiser; the first that fits is used


FULL: Final = Workload(samples=16, steps=20, guidance=5.0, batches=(8, 4, 2, 1))
TINY: Final = Workload(samples=4, steps=3, guidance=5.0, batches=(2, 1))


def run_config(
    model: str,
    device: str,
    dtype: str,
    work: Workload,
    batch: int,
    iterations: int = 1,
) -> TrainConfig:
    """The configuration of a run: DDPO-IS with LoRA on JPEG compressibility, all steps trained.

    Args:
        model: Place of a policy factory.
        device: Torch device.
        dtype: Type of the frozen weights.
        work: Size of an iteration.
        batch: Images per call of the denoiser.
        iterations: Number of iterations.
    """
    never = 10**6
    return config_for(
        {
            "model": model,
            "reward": "compressibility",
            "iterations": iterations,
            "device": device,
            "dtype": dtype,
            "checkpoint_every": never,
            "grid_every": never,
            "sample": {
                "samples": work.samples,
                "per_prompt": 2,
                "steps": work.steps,
                "guidance": work.guidance,
                "batch": batch,
            },
            "optim": {"updates": 2, "timesteps": 0, "skip_last": 0, "lr": 3e-4, "clip_range": 1e-4},
            "adapt": {"rank": RANK, "alpha": RANK},
        }
    )
