"""The policy of a run, ready to be trained."""

from __future__ import annotations

import torch

from ddpo.errors import ConfigError
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import CheckpointInfo, find_checkpoint
from ddpo.policies.kept_weights import KeptWeights
from ddpo.policies.policy import LoraSettings, TrainablePolicy
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.low_memory import keep_fewer_activations

__all__ = ["adapted_policy", "begin_from", "keep_start"]


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
    policy = load_policy(
        model or config.model,
        device=device or config.device,
        dtype=config.dtype,
        size=config.sample.size,
    )
    lora = LoraSettings(config.adapt.rank, config.adapt.alpha, config.adapt.targets)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        if config.adapt.start:
            begin_from(policy, find_checkpoint(config.adapt.start, policy.model), lora)
        else:
            policy.adapt(config.adapt.kind, lora)
    keep_fewer_activations(policy, config)
    return policy


def begin_from(policy: TrainablePolicy, checkpoint: CheckpointInfo, lora: LoraSettings) -> None:
    """Adapts a policy with the weights of a LoRA, through its method of the same name.

    Args:
        policy: A policy that was not adapted.
        checkpoint: The LoRA.
        lora: Settings of the adapters, which the LoRA must have.

    Raises:
        ConfigError: The policy has no such method.
        CheckpointError: The LoRA is damaged, or does not fit the model or the settings.
    """
    method = getattr(policy, "begin_from", None)
    if method is None:
        raise ConfigError(
            f"the model {policy.model!r} cannot begin from a LoRA: leave out adapt.start"
        )
    method(checkpoint, lora)


def keep_start(policy: TrainablePolicy) -> KeptWeights:
    """Makes the trained weights, as they are now, the reference policy, by the policy's method.

    Raises:
        ConfigError: The policy has no such method.
    """
    method = getattr(policy, "keep_start", None)
    if method is None:
        raise ConfigError(
            f"the model {policy.model!r} has one reference: leave out optim.kl_reference"
        )
    start: KeptWeights = method()
    return start
