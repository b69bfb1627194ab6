"""Timed iterations of the real trainer on a model with random weights."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from ddpo.doctor.budget import first_that_fits
from ddpo.doctor.measuring import peak_memory_mb
from ddpo.doctor.ratio import sample_and_train_once
from ddpo.doctor.row import Outcome
from ddpo.doctor.workload import Workload, run_config
from ddpo.policies.policy import save_memory
from ddpo.rewards.tools.bench import reset_peak_memory
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.loop import train
from ddpo.trainer.monitoring.events import IterationDone, Metrics

__all__ = ["one_batch_each", "training_iterations"]

ITERATIONS: Final = 3  # the first one loads and chooses kernels and is not counted


def training_iterations(
    model: str,
    device: str,
    dtype: str,
    work: Workload,
    peak_seconds: Callable[[int], float] | None = None,
) -> Outcome:
    """Speed of sampling and training, peak memory, and the ratio of every iteration.

    Args:
        model: Place of a policy factory.
        device: Torch device.
        dtype: Type of the frozen weights.
        work: Size of an iteration.
        peak_seconds: Function from a number of denoiser inputs to their seconds at the measured
            bfloat16 peak; None if the peak is not known.
    """
    found, note = first_that_fits(
        work.batches,
        lambda batch: _timed(run_config(model, device, dtype, work, batch, ITERATIONS)),
    )
    metrics, batch, peak_mb = found
    counted = metrics[1:]
    sampling = statistics.median(each.seconds_sampling for each in counted)
    training = statistics.median(each.seconds_training for each in counted)
    deviation = max(each.ratio_first_deviation or 0.0 for each in metrics)
    items = work.samples * work.steps
    share = None if peak_seconds is None else peak_seconds(2 * items) / (sampling + training)
    values = {
        "sampled_images_per_s": work.samples / sampling,
        "trained_items_per_s": items / training,
        "images_per_s": work.samples / (sampling + training),
        "iteration_s": sampling + training,
        "share_of_bf16_peak": share,
        "peak_mb": peak_mb,
        "largest_ratio_deviation": deviation,
        "batch": batch,
        "images": work.samples,
        "steps": work.steps,
        "guidance": work.guidance,
    }
    if deviation == 0:
        return Outcome("measured", values, note)
    return Outcome("failed", values, "the ratio must be exactly 1 before the first update")


def _timed(config: TrainConfig) -> tuple[list[Metrics], int, float]:
    device = torch.device(config.device)
    reset_peak_memory(config.device)
    with tempfile.TemporaryDirectory(prefix="ddpo-doctor-") as folder:
        events = train(config, Path(folder) / "run")
        metrics = [event.metrics for event in events if isinstance(event, IterationDone)]
    return metrics, config.sample.batch, peak_memory_mb(device)


def one_batch_each(model: str, device: str, dtype: str, work: Workload) -> Outcome:
    """Speed and peak memory of one batch, with gradient checkpointing, after a warm-up.

    Args:
        model: Place of a policy factory.
        device: Torch device.
        dtype: Type of the frozen weights.
        work: Number of steps, guidance, and the batch sizes to try.
    """

    def measure(batch: int) -> dict[str, float | int | str | None]:
        size = replace(work, samples=2 * batch)
        config = run_config(model, device, dtype, size, batch)
        policy = adapted_policy(config)
        save_memory(policy)
        sample_and_train_once(policy, config)
        reset_peak_memory(device)
        found = sample_and_train_once(policy, config)
        return {
            "sampled_images_per_s": batch / found.sampling_s,
            "trained_items_per_s": batch / found.training_s,
            "peak_mb": peak_memory_mb(policy.device),
            "largest_ratio_deviation": found.ratio_deviation,
            "batch": batch,
            "steps": work.steps,
            "guidance": work.guidance,
        }

    values, note = first_that_fits(work.batches, measure)
    if values["largest_ratio_deviation"] != 0:
        note = "the ratio must be exactly 1 before the first update"
        return Outcome("failed", values, note)
    return Outcome("measured", values, note or "with gradient checkpointing")
