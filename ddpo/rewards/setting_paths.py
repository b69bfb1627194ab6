"""Paths in the settings of a run, so that it works from any directory and after a move.

When a run starts, its settings get absolute paths. When it is read, a missing file is searched at
the same place relative to the run folder. So a project that was copied as a whole stays whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.io.atomic import named_path
from ddpo.prompts import builtin_names
from ddpo.registry import Registry
from ddpo.rewards.spec import parse_expression, redacted, replace_paths, words_to_trust
from ddpo.user_code import names_code

__all__ = [
    "NAMING",
    "absolute_path",
    "at_new_place",
    "located",
    "missing_files",
    "moved_path",
    "same_but_for_paths",
    "setting_words",
    "storable",
]

REWARDS: Final = ("reward", "held_out")
PROMPTS: Final = ("prompts", "held_out_prompts")
OBJECTS: Final = ("algorithm", "model")
NAMING: Final = (*REWARDS, *PROMPTS, *OBJECTS)
"""The settings that may name files."""

Place = Callable[[str], str | None]


def absolute_path(path: str | Path) -> Path:
    """The absolute form of an existing path, with links resolved except in its last part."""
    found = named_path(path).absolute()
    return found if found.name in ("", "..") else found.parent.resolve() / found.name


def located(
    values: Mapping[str, Any], registries: Mapping[str, Registry[Any]] | None = None
) -> dict[str, Any]:
    """Plain settings with absolute paths of all existing files, and bare names of built-in lists.

    Args:
        values: Settings by name; missing ones stay missing.
        registries: Setting → registered names, which win over folders of the same name.
    """
    known = {setting: registry.entries() for setting, registry in (registries or {}).items()}

    def place(path: str) -> str | None:
        return str(absolute_path(path)) if named_path(path).exists() else None

    found = _replaced(values, place, known)
    for setting in PROMPTS:
        name = str(found.get(setting, "")).removesuffix(".txt").removesuffix(".jsonl")
        if name in builtin_names():
            found[setting] = name
    return found


def at_new_place(values: Mapping[str, Any], run: Path, before: str | None) -> dict[str, Any]:
    """Plain settings with a new path for each missing file that moved along with the run folder.

    Args:
        values: Settings by name.
        run: Run folder.
        before: Absolute path of the run folder when the run started; None if unknown.
    """

    def place(path: str) -> str | None:
        return moved_path(path, run, before)

    return _replaced(values, place, {})


def moved_path(path: str, run: Path, before: str | None) -> str | None:
    """The new path of a missing file that moved along with the run folder; None if there is none.

    Args:
        path: Absolute path.
        run: Run folder.
        before: Absolute path of the run folder when the run started; None if unknown.
    """
    if before is None or not os.path.isabs(path) or os.path.exists(path):
        return None
    other = Path(os.path.normpath(run.resolve() / os.path.relpath(path, before)))
    return str(other) if other.exists() else None


def missing_files(values: Mapping[str, Any]) -> dict[str, str]:
    """Setting → the first missing path in it."""
    found: dict[str, str] = {}
    for setting in NAMING:

        def place(path: str, setting: str = setting) -> None:
            looks_like_path = os.path.isabs(path) or path.endswith(".py")
            if looks_like_path and not named_path(path).exists():
                found.setdefault(setting, path)

        if setting in values:
            _replaced({setting: values[setting]}, place, {})
        text = str(values.get(setting, ""))
        is_file = setting in PROMPTS and text and text not in builtin_names()
        if is_file and not named_path(text).exists():
            found.setdefault(setting, text)
    return found


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings as they are stored and shown: rewards without their secrets."""
    texts = {name: values[name] for name in REWARDS if isinstance(values.get(name), str)}
    return dict(values) | {name: redacted(text) for name, text in texts.items()}


def setting_words(values: Mapping[str, Any], settings: tuple[str, ...] = NAMING) -> list[str]:
    """The code and the servers that plain settings name, as `--trust` takes them.

    Args:
        values: Settings by name.
        settings: Names of the settings that count.
    """
    words: list[str] = []
    for setting in settings:
        text = values.get(setting)
        if not isinstance(text, str):
            continue
        if setting in REWARDS:
            words += words_to_trust(text)
        elif setting in OBJECTS and names_code(text):
            words.append(text)
    return list(dict.fromkeys(words))


def same_but_for_paths(setting: str, one: str, other: str) -> bool:
    """True if two values of a setting differ at most in paths.

    The contents of the files are compared elsewhere.
    """
    if setting in PROMPTS:
        return True
    same: bool = _without_paths(setting, one) == _without_paths(setting, other)
    return same


def _without_paths(setting: str, text: str) -> str:
    """The value of a setting with the word "file" in place of each path."""
    return str(
        _replaced({setting: text}, lambda path: "file" if _is_path(path) else None, {})[setting]
    )


def _is_path(text: str) -> bool:
    return text.endswith(".py") or os.path.isabs(text) or named_path(text).exists()


def _replaced(
    values: Mapping[str, Any], place: Place, known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Plain settings with the paths of their files replaced."""
    found = dict(values)
    for setting in NAMING:
        text = found.get(setting)
        if not isinstance(text, str) or not text or text in known.get(setting, ()):
            continue
        if setting in REWARDS:
            found[setting] = _replaced_in_expression(text, place)
        elif setting in OBJECTS and (match := re.fullmatch(r"(.+\.py)(:[\w.]+)", text)):
            found[setting] = (place(match[1]) or match[1]) + match[2]
        elif setting in PROMPTS:
            found[setting] = place(text) or text
    return found


def _replaced_in_expression(text: str, place: Place) -> str:
    """As `replace_paths`, but the unchanged text if the new one could not be parsed.

    An example is a path with a comma as the value of an option.
    """
    try:
        _, before = parse_expression(text)
    except ConfigError:
        return text  # the reward's own loading reports it
    other = replace_paths(text, place)
    try:
        _, after = parse_expression(other)
    except ConfigError:
        return text
    return other if len(after) == len(before) else text
