"""Writes the names that an editor completes: `python tools/api_names.py`.

They go into ddpo/api/names.py. A test checks that the file is up to date.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ddpo.io.atomic import write_text
from ddpo.policies import EMBEDDED
from ddpo.prompts import builtin_names
from ddpo.recipes import recipe_names
from ddpo.rewards.cards import CARDS
from ddpo.trainer.algorithms import algorithms

FILE = Path(__file__).parents[1] / "ddpo" / "api" / "names.py"
HEAD = '''"""Names of built-in rewards, lists and methods, which editors complete; others are legal.

Written by tools/api_names.py from the registries.
"""

from typing import Literal

__all__ = ["AlgorithmName", "Family", "ModelName", "PromptList", "RecipeName", "RewardName"]
'''


def source() -> str:
    """The source of the module."""
    own_algorithms = [name for name in algorithms.names() if algorithms.origin(name) == "ddpo"]
    families = sorted({card.family for card in CARDS.values()})
    return HEAD + "".join(
        [
            _literal("RewardName", sorted(CARDS)),
            _literal("Family", families),
            _literal("PromptList", sorted(builtin_names())),
            _literal("AlgorithmName", own_algorithms),
            _literal("ModelName", sorted(EMBEDDED)),
            _literal("RecipeName", sorted(recipe_names())),
        ]
    )


def _literal(alias: str, names: Iterable[str]) -> str:
    words = [f'"{name}"' for name in names]
    if len(words) == 1:
        return f"\n{alias} = Literal[{words[0]}]\n"
    lines = "".join(f"    {word},\n" for word in words)
    return f"\n{alias} = Literal[\n{lines}]\n"


if __name__ == "__main__":
    write_text(FILE, source())
