"""What a run is made of: written down when it starts, compared when it goes on."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import torch

from ddpo.errors import ConfigError
from ddpo.policies.model_place import facts_of
from ddpo.prompts import PromptSet
from ddpo.rewards.resolved import ResolvedReward
from ddpo.trainer.config import TrainConfig

__all__ = ["check_unchanged", "describe"]

PACKAGES: Final = ("ddpo", "torch", "diffusers", "transformers", "peft", "pillow", "numpy")
IGNORED: Final = ("calls", "thread_safe", "cache", "lineage")  # the fields of a card that no score depends on


def describe(config: TrainConfig, reward: ResolvedReward, prompts: PromptSet, origins: Mapping[str, str], processes: int) -> dict[str, Any]:
    """What is needed to tell two runs apart, or to repeat one.

    Args:
        config: the settings.
        reward: that is trained on.
        prompts: that are trained on.
        origins: "algorithm" and "model" → where they come from; a file with its hash.
        processes: how many share the work.
    """
    return {
        "schema": 1,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "config": config.to_dict(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "reward": _reward(config, reward),
        "prompts": {"source": prompts.source, "sha256": prompts.digest, "list": [prompt.text for prompt in prompts.prompts]},
        "origins": dict(origins),
        "base": facts_of(config.model),
    }


def _reward(config: TrainConfig, reward: ResolvedReward) -> dict[str, Any]:
    return {"spec": config.reward, "card": reward.card.to_dict(), "signature": reward.signature, "origin": reward.origin}


def check_unchanged(
    before: Mapping[str, Any], config: TrainConfig, reward: ResolvedReward, prompts: PromptSet, origins: Mapping[str, str]
) -> None:
    """Compares prompts, reward, algorithm and model with those of a manifest.

    The hash of a reward's file is its card's version; what a server tells of its reward, weights and options included, is the origin.

    Raises:
        ConfigError: one is another; names it.
    """
    known, texts = before["prompts"], [prompt.text for prompt in prompts.prompts]
    if known["list"] != texts or known.get("sha256", prompts.digest) != prompts.digest:
        raise ConfigError(f"the run cannot be resumed: the prompts of {prompts.source} are not those that it was started with")
    then, now = before["reward"], json.loads(json.dumps(_reward(config, reward)))
    served = now["origin"].startswith("server ") and then.get("origin", now["origin"]) != now["origin"]
    if served or any(then["card"].get(name) != value for name, value in now["card"].items() if name not in IGNORED):
        raise ConfigError(f"the run cannot be resumed: the reward {config.reward!r} is not the one that it was started with")
    for kind, origin in origins.items():
        if (begun := before.get("origins", {}).get(kind, origin)) != origin:
            named = f"the {kind} {getattr(config, kind)!r}"
            raise ConfigError(f"the run cannot be resumed: {named} was that of {begun} when it was started, and is now {origin}")
