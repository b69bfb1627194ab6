"""The policy of a run, ready to be trained."""

from __future__ import annotations

import torch

from ddpo.policies import load_policy
from ddpo.policies.policy import LoraSettings, TrainablePolicy
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.low_memory import keep_fewer_activations

__all__ = ["adapted_policy"]


def adapted_policy(config: TrainConfig, device: str) -> TrainablePolicy:
    """The model of the settings on `device`, with the weights that are trained as they are before the first step.

    Adapters start from the seed of the run; the caller's random generator is left alone.

    Raises:
        UserError: The model cannot be loaded, or not be trained so.
    """
    policy = load_policy(config.model, device=device, dtype=config.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        policy.adapt(config.adapt.kind, LoraSettings(config.adapt.rank, config.adapt.alpha, config.adapt.targets))
    keep_fewer_activations(policy, config)
    return policy
