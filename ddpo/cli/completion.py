"""Completion of names in a shell; nothing heavy is imported, and no plug-in's code is run.

Each function takes the start of a word and returns the words that it can become.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

__all__ = [
    "complete_algorithm",
    "complete_model",
    "complete_prompts",
    "complete_recipe",
    "complete_reward",
    "complete_reward_or_path",
]

MODULES = (".py",)


def complete_reward(incomplete: str) -> list[str]:
    """Rewards of ddpo and of installed packages, and Python files."""
    from ddpo.rewards.zoo import rewards

    return _starting(rewards.names(), incomplete) + _paths(incomplete, MODULES)


def complete_reward_or_path(incomplete: str) -> list[str]:
    """Rewards, files and folders."""
    from ddpo.rewards.zoo import rewards

    return _starting(rewards.names(), incomplete) + _paths(incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Built-in recipes and TOML files."""
    from ddpo.recipes import SUFFIX, recipe_names

    return _starting(recipe_names(), incomplete) + _paths(incomplete, (SUFFIX, ".json"))


def complete_prompts(incomplete: str) -> list[str]:
    """Built-in prompt lists, files and folders."""
    from ddpo.prompts import builtin_names

    return _starting(builtin_names(), incomplete) + _paths(incomplete)


def complete_algorithm(incomplete: str) -> list[str]:
    """Algorithms of ddpo and of installed packages, and Python files."""
    from ddpo.trainer.algorithms import algorithms

    return _starting(algorithms.names(), incomplete) + _paths(incomplete, MODULES)


def complete_model(incomplete: str) -> list[str]:
    """Base models of ddpo and of installed packages, and folders."""
    from ddpo.policies import policies

    return _starting(policies.names(), incomplete) + _paths(incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in sorted(names) if name.startswith(incomplete)]


def _paths(incomplete: str, suffixes: Sequence[str] = ()) -> list[str]:
    """Folders, and files of some suffixes or of all, whose path starts with a text."""
    found = sorted(glob.glob(f"{glob.escape(os.path.expanduser(incomplete))}*"))
    paths = [f"{path}/" if os.path.isdir(path) else path for path in found]
    return [path for path in paths if not suffixes or path.endswith(("/", *suffixes))]
