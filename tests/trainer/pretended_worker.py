"""Runs parts of a run on a pretended device: `python pretended_worker.py TINY_SD TINY_XL OUT`.

`OUT` is a JSON file: the name of each scenario → its error, or null. See `test_pretended_device.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpo.policies import load_policy
from ddpo.policies.policy import LoraSettings
from ddpo.policies.sample import SampleKey, sample_trajectory
from ddpo.trainer.advantages import PictureWeights
from ddpo.trainer.algorithms import load_algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.likelihoods import DenoisingLikelihood, TransitionLikelihood
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.rollout import sampler_settings
from ddpo.trainer.update import update
from ddpo.types import Prompt, RewardOutput, Rollout

sys.path.append(str(Path(__file__).parents[1]))
from pretended_device import DEVICE, HostWaits, Waiting, no_waiting, pretend

KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a dog"), 0), SampleKey(Prompt("a cat"), 1), SampleKey(Prompt("a dog"), 1)]

NO_REWARDS = RewardOutput(torch.zeros(4))


def settings_of(algorithm: str, guidance: float, steps: int = 4, **more: Any) -> TrainConfig:
    """Two calls per denoising step, and several per update."""
    sample = {"samples": 4, "per_prompt": 2, "steps": steps, "guidance": guidance, "batch": 2}
    optim = {"updates": 1, "timesteps": 3, "skip_last": 0} | more
    return config_from_dict({"algorithm": algorithm, "sample": sample, "optim": optim})


def to_device(policy: Any, kind: Any) -> None:
    """Moves a policy to the pretended device and makes it trainable."""
    policy.device = torch.device(DEVICE)
    policy.unet.to(policy.device)
    policy.adapt(kind, LoraSettings(rank=2, alpha=2))


def rollout_of(policy: Any, config: TrainConfig) -> Rollout:
    """A rollout without rewards, which the update does not read."""
    paths = [sample_trajectory(policy, KEYS[start : start + 2], sampler_settings(config.sample), 0) for start in (0, 2)]
    trajectory = type(paths[0])(torch.cat([path.latents for path in paths]), torch.cat([path.log_probs for path in paths]))
    return Rollout(trajectory, tuple(key.prompt for key in KEYS), NO_REWARDS)


def one_step(policy: Any, config: TrainConfig) -> None:
    """Sampling waits no oftener for more denoising steps, and what it gives is on the device."""
    sample_trajectory(policy, KEYS[:2], sampler_settings(config.sample), 0)  # which encodes the texts
    counts = []
    for steps in (2, 5):
        settings = replace(sampler_settings(config.sample), steps=steps)
        with HostWaits() as waits:
            path = sample_trajectory(policy, KEYS[:2], settings, 0)
        assert path.latents.device.type == path.log_probs.device.type == DEVICE
        counts.append(len(waits.found))
    if counts[0] != counts[1]:
        raise Waiting(f"{counts} waits in 2 and 5 denoising steps: {waits.found}")


def one_update(policy: Any, config: TrainConfig) -> None:
    """After the first call of an update, which prepares it, no training call waits."""
    algorithm, _ = load_algorithm(config.algorithm)
    rollout = rollout_of(policy, config)
    likelihood: Any
    if algorithm.likelihood == "transition":
        coefficients = policy.schedule.coefficients(config.sample.steps, config.sample.eta).to(policy.device)
        likelihood = TransitionLikelihood(policy, rollout, coefficients, config)
    else:
        likelihood = DenoisingLikelihood(policy, rollout, config, 1)
    parameters = [parameter for _, parameter in policy.trainable_parameters()]
    flags = np.ones(4, bool)
    weights = PictureWeights(np.arange(4.0), flags, flags, 0)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    calls = update(policy, optimizer, algorithm, likelihood, weights, config, 1)
    next(calls)
    with no_waiting():
        for _ in range(3):
            next(calls)
    calls.close()
    assert all(parameter.grad is not None and parameter.grad.device.type == DEVICE for parameter in parameters)


def decoded(policy: Any) -> None:
    """Pixels are made on the device."""
    pixels = policy.decode(torch.zeros(2, *policy.latent_shape, dtype=policy.storage_dtype, device=DEVICE))
    assert pixels.device.type == DEVICE
    assert pixels.dtype == torch.float32


RUNS = (("ddpo_is", 1.0, 0.0), ("ddpo_is", 5.0, 0.1), ("rwr", 5.0, 0.0))
"""Algorithm, guidance, weight of the KL."""


def policy_scenario(folder: str, kind: str) -> None:
    """Samples, trains and decodes. Weights are read outside, where tensors have values."""
    policy: Any = load_policy(folder, dtype="bfloat16" if kind == "lora" else "float32")
    with pretend(float64=False):
        to_device(policy, kind)
        for algorithm, guidance, kl in RUNS:
            config = settings_of(algorithm, guidance, kl=kl)
            one_step(policy, config)
            one_update(policy, config)
        decoded(policy)


def policies(folders: dict[str, str]) -> dict[str, Callable[[], None]]:
    """The scenarios of policies by name."""
    pairs = product(folders.items(), ("lora", "full"))
    return {f"{family} {kind}": partial(policy_scenario, folder, kind) for (family, folder), kind in pairs}
