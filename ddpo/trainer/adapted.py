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
    """The policy of a run, with its trained weights as they are before the first step.

    Adapters start from the seed of the run; the caller's random generator is left alone.

    Args:
        config: settings of the run.
        device: torch device of this process; None: that of the settings.
        model: present place of the model; None if it is where the settings say.

    Raises:
        UserError: the model cannot be loaded, or cannot be trained as the settings say.
    """
    policy = load_policy(model or config.model, device=device or config.device, dtype=config.dtype)
    lora = LoraSettings(config.adapt.rank, config.adapt.alpha, config.adapt.targets)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        policy.adapt(config.adapt.kind, lora)
    keep_fewer_activations(policy, config)
    return policy
