"""Estimates before the first iteration: memory, time and room on the disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch

from ddpo.errors import ConfigError
from ddpo.policies.policy import Policy
from ddpo.text import byte_size, count, duration
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.low_memory import rewards_leave
from ddpo.trainer.memory import memory_parts, total_memory
from ddpo.trainer.minibatches import call_count
from ddpo.trainer.monitoring.events import Finding
from ddpo.trainer.monitoring.metrics import peak_memory
from ddpo.types import Rollout

__all__ = [
    "check_paths_fit",
    "checkpoints_due",
    "disk_finding",
    "memory_finding",
    "old_output_bytes",
    "time_finding",
]


def memory_finding(
    policy: Policy,
    first: Rollout,
    config: TrainConfig,
    processes: int,
    activations: int,
    reward_mb: float,
    old_outputs: int = 0,
) -> Finding:
    """The expected peak of memory, by part, and the memory that there is.

    Args:
        policy: the policy, adapted.
        first: the batch that was sampled.
        config: settings of the run.
        processes: number of processes.
        activations: bytes of activations of one training call.
        reward_mb: memory of the reward on the policy's device, in 10⁶ bytes.
        old_outputs: bytes of the outputs of the policy that sampled; 0 if none are kept.
    """
    latents = first.trajectory.latents
    each = latents.element_size() * latents.numel()
    batches = math.ceil(config.sample.samples / processes / config.sample.batch)
    leaves = rewards_leave(config, policy.device)
    parts = memory_parts(policy, activations, each * batches, reward_mb, leaves)
    on_gpu = policy.device.type == "cuda"
    to_come = 0 if on_gpu else each * (batches - 1)  # a GPU has room for all paths already
    need = peak_memory(policy.device) + parts.optimizer + to_come + old_outputs
    total = total_memory(policy.device)
    where = "of the GPU" if on_gpu else "of this machine"
    share = " in each process" if processes > 1 else ""
    room = f" of the {byte_size(total)} {where}" if total else ""
    text = f"about {byte_size(need)}{share}{room}, an estimate from the first batch; {parts.text()}"
    if old_outputs:
        text += f", old outputs {byte_size(old_outputs)}"
    return Finding("memory", text, good=not total or need < total)


def time_finding(
    sampling: float,
    training: float,
    counted: int,
    config: TrainConfig,
    iterations: int,
    processes: int,
    by_place: bool = False,
) -> Finding:
    """The expected time of an iteration and of the run.

    The measured calls are the first of their kind, so the estimate is rather too high.

    Args:
        sampling: seconds in which one batch was sampled and scored.
        training: seconds of one training call.
        counted: number of images of an iteration that are trained on.
        config: settings of the run.
        iterations: number of iterations to come.
        processes: number of processes.
        by_place: True if items are trained at the place where they were sampled.
    """
    sample = config.sample
    optim = config.optim
    images = math.ceil(counted // optim.updates / processes)
    calls = call_count(images, config.steps_per_image, sample.batch, by_place)
    calls *= optim.updates * optim.epochs
    each = sampling * math.ceil(sample.samples / processes / sample.batch) + training * calls
    total = each * iterations
    queries = sample.samples * iterations
    return Finding(
        "time",
        f"about {each:.1f} s an iteration, {duration(total)} for {iterations}, "
        f"{queries:,} reward queries; an estimate from the first batch",
    )


def disk_finding(out: Path, policy: Policy, config: TrainConfig, done: int) -> Finding:
    """The bytes that the rest of the run will write, and those that are free.

    Args:
        out: the run folder, which need not exist.
        policy: the policy whose weights are written.
        config: settings of the run.
        done: number of iterations that are done.

    Raises:
        ConfigError: there is too little room.
    """
    checkpoints = checkpoints_due(done, config.iterations, config.checkpoint_every)
    if config.checkpoint_keep:
        most = config.checkpoint_keep + 1 + bool(config.held_out)
        checkpoints = min(checkpoints, most)
    # the state has weights and two moments, and is there twice while it is replaced
    need = _trainable_bytes(policy) * (checkpoints + 2 * 3)
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    text = (
        f"about {byte_size(need)} for {count(checkpoints, 'checkpoint')} "
        f"and the state; {byte_size(free)} are free"
    )
    if need > free:
        raise ConfigError(
            f"{place} has too little room: {text}. "
            "Set checkpoint_keep, or checkpoint_every higher, or another --out"
        )
    return Finding("disk", text)


def checkpoints_due(done: int, iterations: int, every: int) -> int:
    """The number of checkpoints that the iterations after the first `done` will write."""
    regular = iterations // every - done // every
    last = iterations > done and iterations % every != 0
    return regular + last


def old_output_bytes(policy: Policy, config: TrainConfig, images: int) -> int:
    """Bytes of the outputs of the policy that sampled, of which each item has one in float32."""
    items = images * config.steps_per_image * config.optim.epochs
    return 4 * math.prod(policy.latent_shape) * items


def check_paths_fit(
    policy: Policy, config: TrainConfig, images: int, old_outputs: bool = False
) -> None:
    """Compares the denoising paths of an iteration with the memory of the machine.

    Args:
        policy: the policy, which knows the shape of its latents.
        config: settings of the run.
        images: number of images that this process samples in an iteration.
        old_outputs: True if the algorithm needs the outputs of the policy that sampled.

    Raises:
        ConfigError: the paths alone need more memory than there is.
    """
    each = math.prod(policy.latent_shape) * (config.sample.steps + 1)
    size = torch.empty(0, dtype=policy.storage_dtype).element_size()
    noise = 4 * each * config.sample.batch  # float32, of one call
    need = size * each * images + noise
    if old_outputs:
        need += old_output_bytes(policy, config, images)
    total = total_memory(policy.device)
    if total and need > total:
        raise ConfigError(
            f"sample.samples={config.sample.samples}, sample.steps={config.sample.steps} and "
            f"sample.batch={config.sample.batch} need {byte_size(need)} for the denoising paths "
            f"alone, and there are {byte_size(total)}: set one of them lower"
        )


def _trainable_bytes(policy: Policy) -> int:
    """Bytes of the parameters that are trained."""
    return sum(
        parameter.numel() * parameter.element_size()
        for _, parameter in policy.trainable_parameters()
    )
