"""Recipes, TOML files of settings: each model family of `ddpo.policies.family` has its own."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final

__all__ = ["SUFFIX", "read_builtin", "recipe_names", "recipe_text"]

SUFFIX: Final = ".toml"


@cache
def recipe_names() -> tuple[str, ...]:
    """The names of the built-in recipes, sorted."""
    entries = files("ddpo.recipes").iterdir()
    return tuple(
        sorted(entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX))
    )


def recipe_text(name: str) -> str:
    """The TOML text of a built-in recipe; `name` is one of `recipe_names()`."""
    return (files("ddpo.recipes") / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def read_builtin(name: str) -> dict[str, Any]:
    """The plain values of a built-in recipe; `name` is one of `recipe_names()`."""
    return tomllib.loads(recipe_text(name))
