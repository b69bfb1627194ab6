"""The policy of a run, ready to be trained."""

from __future__ import annotations

import torch

from ddpo.policies import load_policy
from ddpo.policies.policy import LoraSettings, TrainablePolicy
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.low_memory import keep_fewer_activations

__all__ = ["adapted_policy"]


def adapted_policy(
    config: TrainConfig, device: str | None = None, model: str | None = None
) -> TrainablePolicy:
    """The model of the settings, with the weights that are trained as they are before the first step.

    Adapters start from the seed of the run; the caller's random generator is left alone.

    Args:
        config: Settings of the run.
        device: Torch device of this process; None for that of the settings.
        model: Where the model is now; None if it is where the settings say.

    Raises:
        UserError: The model cannot be loaded, or not be trained so.
    """
    policy = load_policy(model or config.model, device=device or config.device, dtype=config.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        policy.adapt(
            config.adapt.kind,
            LoraSettings(config.adapt.rank, config.adapt.alpha, config.adapt.targets),
        )
    keep_fewer_activations(policy, config)
    return policy
