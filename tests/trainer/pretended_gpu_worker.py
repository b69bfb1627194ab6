"""Runs parts of a run on a pretended device: `python pretended_gpu_worker.py TINY_SD TINY_XL OUT`.

`OUT` is a JSON file: the name of each scenario → its error, or null. See `test_pretended_gpu.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpo.policies import load_policy
from ddpo.policies.policy import LoraSettings
from ddpo.policies.sampler import SampleKey, sample_trajectory
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.algorithms import load_algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.likelihoods import DenoisingLikelihood, TransitionLikelihood
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.rollout import sampler_settings
from ddpo.trainer.update import update
from ddpo.types import Prompt, RewardOutput, Rollout, Trajectory

sys.path.append(str(Path(__file__).parents[1]))
from pretended_gpu import DEVICE, NoWaiting, pretend

KEYS = [
    SampleKey(Prompt("a cat"), 0),
    SampleKey(Prompt("a dog"), 0),
    SampleKey(Prompt("a cat"), 1),
    SampleKey(Prompt("a dog"), 1),
]

NO_REWARDS = RewardOutput(torch.zeros(4))


def settings_of(algorithm: str, guidance: float, kl: float = 0.0) -> TrainConfig:
    """One update of two calls."""
    sample = {"samples": 4, "per_prompt": 2, "steps": 2, "guidance": guidance, "batch": 2}
    optim = {"updates": 1, "timesteps": 1, "skip_last": 0, "kl": kl}
    return config_from_dict({"algorithm": algorithm, "sample": sample, "optim": optim})


def to_device(policy: Any, kind: Any) -> None:
    """Moves a policy to the pretended device and makes it trainable."""
    policy.device = torch.device(DEVICE)
    policy.unet.to(policy.device)
    policy.adapt(kind, LoraSettings(rank=2, alpha=2))


def rollout_on_device(policy: Any, config: TrainConfig) -> Rollout:
    """A rollout as the sampler leaves it, without rewards, which the update does not read."""
    shape = (len(KEYS), config.sample.steps + 1, *policy.latent_shape)
    latents = torch.zeros(shape, dtype=policy.storage_dtype, device=DEVICE)
    log_probs = torch.zeros(len(KEYS), config.sample.steps, device=DEVICE)
    return Rollout(Trajectory(latents, log_probs), tuple(key.prompt for key in KEYS), NO_REWARDS)


def sampled_again(policy: Any, config: TrainConfig) -> None:
    """The second batch of a run waits for nothing, and its path is on the device."""
    settings = sampler_settings(config.sample)
    policy.encode([""])
    sample_trajectory(policy, KEYS[:2], settings, 0)
    with NoWaiting():
        path = sample_trajectory(policy, KEYS[2:], settings, 0)
    assert path.latents.device.type == path.log_probs.device.type == DEVICE


def one_update(policy: Any, config: TrainConfig) -> None:
    """The second training call of an update does not wait; the first prepares it."""
    algorithm, _ = load_algorithm(config.algorithm)
    rollout = rollout_on_device(policy, config)
    likelihood: Any
    if algorithm.likelihood == "transition":
        coefficients = policy.schedule.coefficients_on(
            policy.device, config.sample.steps, config.sample.eta
        )
        likelihood = TransitionLikelihood(policy, rollout, coefficients, config)
    else:
        likelihood = DenoisingLikelihood(policy, rollout, config, 1)
    parameters = [parameter for _, parameter in policy.trainable_parameters()]
    flags = np.ones(4, bool)
    weights = SampleWeights(np.arange(4.0), flags, flags, 0)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    calls = update(policy, optimizer, algorithm, likelihood, weights, config, 1)
    next(calls)
    with NoWaiting():
        next(calls)
    calls.close()
    assert all(
        parameter.grad is not None and parameter.grad.device.type == DEVICE
        for parameter in parameters
    )


def decoded(policy: Any) -> None:
    """Pixels are made on the device."""
    pixels = policy.decode(
        torch.zeros(2, *policy.latent_shape, dtype=policy.storage_dtype, device=DEVICE)
    )
    assert pixels.device.type == DEVICE
    assert pixels.dtype == torch.float32


POLICIES = (
    ("sd", "lora", "ddpo_is", 1.0, 0.0),
    ("sd", "lora", "rwr", 5.0, 0.0),
    ("sd", "full", "ddpo_is", 5.0, 0.1),
    ("xl", "lora", "ddpo_is", 5.0, 0.1),
)
"""Family, what is trained, algorithm, guidance, weight of the KL."""


def policy_scenario(folder: str, kind: str, config: TrainConfig) -> None:
    """Samples, trains and decodes. Weights are read outside, where tensors have values."""
    policy: Any = load_policy(
        folder, device="cpu", dtype="bfloat16" if kind == "lora" else "float32"
    )
    with pretend(float64=False):
        to_device(policy, kind)
        sampled_again(policy, config)
        one_update(policy, config)
        decoded(policy)


def policies(folders: dict[str, str]) -> dict[str, Callable[[], None]]:
    """The scenarios of policies by name."""
    return {
        " ".join(map(str, settings)): partial(
            policy_scenario, folders[settings[0]], settings[1], settings_of(*settings[2:])
        )
        for settings in POLICIES
    }


def plant(policy: Any, fault: Callable[[torch.Tensor], object]) -> None:
    """Makes every call of the denoiser run `fault` on its latents, in place of its layers."""
    _, parameter = next(policy.trainable_parameters())

    def faulty(
        latents: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        fault(latents)
        return latents.float() * parameter.sum()

    policy.predict = faulty


def left_on_cpu(policy: Any) -> None:
    """One parameter of the denoiser does not move."""
    weight = policy.unet.conv_in.weight
    policy.unet.conv_in.weight = torch.nn.Parameter(torch.zeros(weight.shape), requires_grad=False)


def planted(fault: Callable[[torch.Tensor], object]) -> Callable[[Any], None]:
    """`plant` of a fault."""
    return partial(plant, fault=fault)


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "a parameter on the CPU": (left_on_cpu, "on the same device"),
    "noise on the CPU": (
        planted(lambda latents: latents + torch.randn(latents.shape)),
        "on the same device",
    ),
    "item": (planted(lambda latents: latents.sum().item()), "DataDependentOutputException"),
    "if": (planted(lambda latents: bool((latents > 0).all())), "DataDependentOutputException"),
    "mask": (planted(lambda latents: latents[latents > 0]), "DynamicOutputShapeException"),
    "cpu": (planted(lambda latents: latents.cpu()), "Waiting"),
    "index on the CPU": (planted(lambda latents: latents[torch.tensor([0, 1])]), "Waiting"),
    "blocking copy": (planted(lambda latents: torch.tensor([0, 1]).to(latents.device)), "Waiting"),
    "pageable copy": (
        planted(lambda latents: torch.tensor([0, 1]).to(latents.device, non_blocking=True)),
        "Waiting",
    ),
    "float64": (planted(lambda latents: latents.double()), "float64 on the device"),
    "float64 made there": (
        planted(lambda latents: torch.zeros(2, dtype=torch.float64, device=latents.device)),
        "float64 on the device",
    ),
}
"""Faults that must be found, by name, each with a part of its error."""


def fault_scenario(
    folder: str, fault: Callable[[Any], None], part: Callable[[Any, TrainConfig], None]
) -> None:
    """Sampling, or an update, with a planted fault."""
    policy: Any = load_policy(folder, device="cpu")
    with pretend(float64=False):
        to_device(policy, "lora")
        fault(policy)
        part(policy, settings_of("ddpo_is", 1.0))


def faults(folder: str) -> dict[str, Callable[[], None]]:
    """The scenarios with a planted fault by name."""
    parts = {"sampling": sampled_again, "update": one_update}
    pairs = product(FAULTS, parts)
    return {
        f"{fault} in {part}": partial(fault_scenario, folder, FAULTS[fault][0], parts[part])
        for fault, part in pairs
    }


def outcome(scenario: Callable[[], None]) -> str:
    """The kind of the error, and its text; empty without one."""
    try:
        scenario()
    except Exception as error:  # the test judges
        return f"{type(error).__name__}: {error}"
    return ""


def main(sd: str, xl: str, out: str) -> None:
    """Runs all scenarios and writes the outcome of each."""
    scenarios = policies({"sd": sd, "xl": xl}) | faults(sd)
    Path(out).write_text(
        json.dumps({name: outcome(scenario) for name, scenario in scenarios.items()})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
