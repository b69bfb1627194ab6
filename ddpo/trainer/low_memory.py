"""The steps that a run takes with `low_memory`.

In every run text encoders and autoencoder leave the device while they are unused
(`ddpo.policies.stable_diffusion`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

import torch

from ddpo.policies.policy import Policy, save_memory
from ddpo.rewards.base import Reward
from ddpo.rewards.offload import offloaded, unplaced_rewards
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Finding

__all__ = [
    "EXTRA",
    "keep_fewer_activations",
    "low_memory_finding",
    "rewards_away",
    "rewards_leave",
    "small_moments",
]

EXTRA: Final = "pip install 'ddpo[low-memory]'"


def keep_fewer_activations(policy: Policy, config: TrainConfig) -> None:
    """Turns on gradient checkpointing if the settings say so.

    With `low_memory` alone, a model that cannot do it trains without it.

    Raises:
        ConfigError: `adapt.checkpointing` is on, and the model cannot do it.
    """
    if config.adapt.checkpointing or (config.low_memory and _can_checkpoint(policy)):
        save_memory(policy)


def small_moments(config: TrainConfig, device: torch.device) -> bool:
    """True if AdamW's moments have 8 bits: with `low_memory`, CUDA and bitsandbytes."""
    return config.low_memory and device.type == "cuda" and find_spec("bitsandbytes") is not None


def rewards_leave(config: TrainConfig, device: torch.device) -> bool:
    """True if rewards leave the device during an update: with `low_memory`, on an accelerator."""
    return config.low_memory and device.type != "cpu"


@contextmanager
def rewards_away(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Inside, networks that rewards placed are off the run's device, if the settings say so."""
    if rewards_leave(config, device):
        with offloaded(device):
            yield
    else:
        yield


def low_memory_finding(
    config: TrainConfig, policy: Policy, rewards: Sequence[Reward] = ()
) -> Finding | None:
    """The steps that are on and those that were left out; None without `low_memory`.

    Args:
        config: settings of the run.
        policy: the policy on its device.
        rewards: rewards that the run calls, the held-out one included.
    """
    if not config.low_memory:
        return None
    steps = []
    missing = []
    if _can_checkpoint(policy):
        steps.append("activations are computed again in the backward pass")
    else:
        missing.append("this model keeps all activations")
    if small_moments(config, policy.device):
        steps.append("AdamW's moments have 8 bits")
    elif policy.device.type == "cuda":
        missing.append(f"AdamW's moments have 32 bits ({EXTRA} for 8)")
    else:
        missing.append("AdamW's moments have 32 bits (8 need CUDA)")
    if rewards_leave(config, policy.device):
        steps.append("rewards leave the device during an update")
        stay = {name for reward in rewards for name in unplaced_rewards(reward, policy.device)}
        if stay:
            names = ", ".join(sorted(stay))
            missing.append(
                f"{names} stays there (move its network with ddpo.rewards.offload.place)"
            )
    text = "; ".join([*steps, "left out: " + ", ".join(missing)] if missing else steps)
    return Finding("low-memory", text)


def _can_checkpoint(policy: Policy) -> bool:
    """True if the model can compute activations again in the backward pass."""
    return hasattr(policy, "save_memory")
