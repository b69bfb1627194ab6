"""`sample.batch = "auto"`: the largest batch that fits on the accelerator, found before the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ddpo.devices import resolve_device
from ddpo.distributed import process_count
from ddpo.errors import ConfigError, MemoryExhausted
from ddpo.policies.policy import TrainablePolicy
from ddpo.policies.sampler import coefficients_of, guided
from ddpo.rewards.zoo import resolve as resolve_reward
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.algorithms import load_algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.low_memory import rewards_leave
from ddpo.trainer.memory import is_out_of_memory

__all__ = ["even_calls", "largest_batch", "largest_fitting"]

HEADROOM: Final = 0.1
"""Share of the free memory that stays free, for fragments and what one call does not need."""


def largest_batch(config: TrainConfig) -> int:
    """The largest `sample.batch` that fits on the device, beside the reward and the optimizer.

    It loads the model for that time, and takes no step. It is at most the images of an update,
    where items are trained at the place in the batch where they were sampled.

    Args:
        config: settings of the run; its own `sample.batch` does not count.

    Raises:
        ConfigError: several processes share the run.
        MemoryExhausted: not even the smallest call fits.
    """
    if process_count() > 1:
        raise ConfigError(
            'sample.batch = "auto" is measured by one process: give a number for several'
        )
    device = resolve_device(config.device)
    reward = resolve_reward(config.reward).on(device)
    unit = config.sample.per_prompt if "group" in reward.card.inputs else 1
    policy = adapted_policy(config, device)
    trained = sum(parameter.nbytes for _, parameter in policy.trainable_parameters())
    reserved = 2 * trained + int(HEADROOM * _free(policy.device))
    scoring = reward.card.memory_mb * 10**6 if reward.card.device == "any" else 0

    def fits(units: int) -> bool:
        return _fits(policy, config, units * unit, reserved, scoring)

    units = max(1, _images_together(config) // unit)
    found = largest_fitting(fits, units)
    if not found:
        raise MemoryExhausted(
            f"not even calls of {unit} fit on {device}: train with --low-memory, or a smaller model"
        )
    return even_calls(units, found) * unit


def _images_together(config: TrainConfig) -> int:
    """Images that calls may share: those of an update, if each has a place in its call."""
    algorithm, _ = load_algorithm(config.algorithm)
    parts = config.optim.updates if algorithm.likelihood == "transition" else 1
    return config.sample.samples // parts


def largest_fitting(fits: Callable[[int], bool], most: int) -> int:
    """The largest power of two up to `most` that fits, tried from 1 upward; 0 if none does."""
    found = 0
    size = 1
    while size <= most and fits(size):
        found = size
        size *= 2
    return found


def even_calls(total: int, most: int) -> int:
    """The size of the fewest equal calls that make up `total` items, at most `most` in each."""
    return math.ceil(total / math.ceil(total / most))


def _free(device: torch.device) -> int:
    """Free bytes on an accelerator; 0 if it does not report them."""
    try:
        return int(torch.accelerator.get_memory_info(device)[0])
    except (RuntimeError, AttributeError, ValueError):
        return 0


def _fits(
    policy: TrainablePolicy, config: TrainConfig, batch: int, reserved: int, scoring: int
) -> bool:
    """True if one sampling and one training call fit while `reserved` bytes are taken.

    Args:
        policy: the policy, adapted.
        config: settings of the run.
        batch: number of items of each call.
        reserved: bytes that are taken all the time.
        scoring: bytes of the reward, which with `low_memory` are free in the training call.
    """
    leaves = rewards_leave(config, policy.device)
    try:
        ballast = torch.empty(reserved, dtype=torch.uint8, device=policy.device)
        reward = torch.empty(scoring, dtype=torch.uint8, device=policy.device)
        _sampling_call(policy, config, batch)
        if leaves:
            del reward
        _training_call(policy, config, batch)
        del ballast
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        for _, parameter in policy.trainable_parameters():
            parameter.grad = None
        if policy.device.type != "cpu":
            torch.accelerator.empty_cache()
    return True


def _sampling_call(policy: TrainablePolicy, config: TrainConfig, batch: int) -> None:
    """Takes one denoising step of `batch` items and decodes them."""
    inputs = _inputs(policy, config, batch)
    with torch.no_grad():
        guided(policy, *inputs, config.sample.guidance)
        policy.decode(inputs[0])


def _training_call(policy: TrainablePolicy, config: TrainConfig, batch: int) -> None:
    """Makes one training call of `batch` items."""
    output = guided(policy, *_inputs(policy, config, batch), config.training_guidance)
    output.square().mean().backward()
    if policy.device.type != "cpu":
        torch.accelerator.synchronize()


def _inputs(
    policy: TrainablePolicy, config: TrainConfig, batch: int
) -> tuple[Tensor, Tensor, Any, Any]:
    """Latents, timesteps, conditioning and unconditional conditioning of a call."""
    latents = torch.zeros(
        (batch, *policy.latent_shape), dtype=policy.storage_dtype, device=policy.device
    )
    coefficients = coefficients_of(policy, config.sample)
    timesteps = coefficients.timesteps[:1].repeat(batch)
    conditioning = policy.encode([""] * batch)
    return latents, timesteps, conditioning, policy.encode([""])
