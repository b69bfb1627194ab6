"""Reinforcement learning of a policy on a registered reward.

from ddpo.trainer import TrainConfig, train

for event in train(TrainConfig(reward="compressibility"), Path("runs/mine")):
    ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpo.trainer.config import TrainConfig, config_from_dict

if TYPE_CHECKING:
    from ddpo.trainer.loop import resume, train

__all__ = ["TrainConfig", "config_from_dict", "resume", "train"]


def __getattr__(name: str) -> object:
    if name in ("resume", "train"):
        from ddpo.trainer import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
