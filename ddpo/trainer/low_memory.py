"""`low_memory`: what a run does to take less memory, in one place.

Text encoders and autoencoder leave the device while they are unused in every run (`ddpo.policies.stable_diffusion`).
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
    """Turns on gradient checkpointing where the settings want it.

    With `low_memory` alone, a model that does not know how trains without it.

    Raises:
        ConfigError: `adapt.checkpointing` asks for it, and the model does not know how.
    """
    if config.adapt.checkpointing or (config.low_memory and _can_checkpoint(policy)):
        save_memory(policy)


def small_moments(config: TrainConfig, device: torch.device) -> bool:
    """True if AdamW's moments are kept in 8 bits: with `low_memory`, on CUDA, where bitsandbytes is installed."""
    return config.low_memory and device.type == "cuda" and find_spec("bitsandbytes") is not None


def rewards_leave(config: TrainConfig, device: torch.device) -> bool:
    """True if rewards leave the run's device while an update runs: with `low_memory`, on an accelerator."""
    return config.low_memory and device.type != "cpu"


@contextmanager
def rewards_away(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Within, no network that a reward placed lies on the run's device, where the settings want it."""
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
        config: Settings of the run.
        policy: The policy on its device.
        rewards: Rewards that the run calls, the held-out one included.
    """
    if not config.low_memory:
        return None
    steps, missing = [], []
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
        stay = sorted(
            {name for reward in rewards for name in unplaced_rewards(reward, policy.device)}
        )
        if stay:
            missing.append(
                f"{', '.join(stay)} stays there (move its network with ddpo.rewards.offload.place)"
            )
    text = "; ".join([*steps, "left out: " + ", ".join(missing)] if missing else steps)
    return Finding("low-memory", text)


def _can_checkpoint(policy: Policy) -> bool:
    return hasattr(policy, "save_memory")
