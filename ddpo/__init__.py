"""A reward-model zoo, a DDPO trainer and an evaluation toolkit for text-to-image diffusion models.

import ddpo

ddpo.list_rewards()                                      # a table of all rewards
sharp = ddpo.load_reward("sharpness")
sharp("cat.png")                                         # one score
ddpo.score(["sharpness", "colorfulness"], "my_folder")   # a table of scores
run = ddpo.train("compressibility", out="runs/mine")
report = ddpo.evaluate(run)

Importing it does not load torch; each function loads what it needs.
"""

from typing import TYPE_CHECKING

from ddpo.old_names import install as _install_old_names

if TYPE_CHECKING:
    from ddpo.api.rewards import LoadedReward, list_rewards, load_reward, score
    from ddpo.api.runs import Run, evaluate, load_run, train

__version__ = "0.1.0"
__all__ = [
    "LoadedReward",
    "Run",
    "__version__",
    "evaluate",
    "list_rewards",
    "load_reward",
    "load_run",
    "score",
    "train",
]

_MODULES = {
    "LoadedReward": "ddpo.api.rewards",
    "Run": "ddpo.api.runs",
    "evaluate": "ddpo.api.runs",
    "list_rewards": "ddpo.api.rewards",
    "load_reward": "ddpo.api.rewards",
    "load_run": "ddpo.api.runs",
    "score": "ddpo.api.rewards",
    "train": "ddpo.api.runs",
}

_install_old_names()


def __getattr__(name: str) -> object:
    if name in _MODULES:
        from importlib import import_module

        from ddpo.api.notebook import import_bars

        import_bars()
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
