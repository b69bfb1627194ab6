"""`low_memory`: what a run does to take less memory, in one place.

Text encoders and autoencoder leave the device while they are unused in every run (`ddpo.policies.stable_diffusion`).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

import torch

from ddpo.policies.policy import Policy, save_memory
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Finding

__all__ = ["EXTRA", "keep_fewer_activations", "low_memory_finding", "small_moments"]

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


def low_memory_finding(config: TrainConfig, policy: Policy) -> Finding | None:
    """The steps that are on and those that were left out, for the check before a run; None without `low_memory`."""
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
    text = "; ".join([*steps, "left out: " + ", ".join(missing)] if missing else steps)
    return Finding("low-memory", text)


def _can_checkpoint(policy: Policy) -> bool:
    return hasattr(policy, "save_memory")
