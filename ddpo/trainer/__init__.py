"""Reinforcement learning of a policy on a registered reward.

from ddpo.trainer import config_for, train

config = config_for({"reward": "compressibility", "algorithm": "rwr"})
for event in train(config, Path("runs/mine")):
    ...

`config_for` fills in the settings of the model's family and of the algorithm, like `ddpo train`.
`TrainConfig(…)` has those of the embedded model and `ddpo_is`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpo.trainer.config import TrainConfig
from ddpo.trainer.recipe import config_from_dict, read_recipe
from ddpo.trainer.settings import config_for

if TYPE_CHECKING:
    from ddpo.trainer.loop import resume, train

__all__ = ["TrainConfig", "config_for", "config_from_dict", "read_recipe", "resume", "train"]


def __getattr__(name: str) -> object:
    if name in ("resume", "train"):
        from ddpo.trainer import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
