"""The files that the settings of a run name, so that the run works from any directory and after it was moved.

When a run starts, its settings get absolute paths. When it is read, a file that is no longer there is looked for at the same place
relative to the run folder: a project that was copied as a whole stays whole.
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
from ddpo.rewards.spec import parse_expression, replace_paths

__all__ = [
    "NAMING",
    "absolute_path",
    "at_new_place",
    "located",
    "missing_files",
    "moved_path",
    "same_but_for_paths",
]

REWARDS: Final = ("reward", "held_out")
PROMPTS: Final = ("prompts", "held_out_prompts")
OBJECTS: Final = ("algorithm", "model")
NAMING: Final = (*REWARDS, *PROMPTS, *OBJECTS)
"""The settings that may name files."""

Place = Callable[[str], str | None]


def absolute_path(path: str | Path) -> Path:
    """The absolute form of a path that is there. Links among its folders are followed; a last link stays a link."""
    found = named_path(path).absolute()
    return found if found.name in ("", "..") else found.parent.resolve() / found.name


def located(
    values: Mapping[str, Any], registries: Mapping[str, Registry[Any]] | None = None
) -> dict[str, Any]:
    """Plain settings with absolute paths for all files that are there; a built-in prompt list by its bare name.

    Args:
        values: settings by name; those that are not there stay away.
        registries: setting → registered names, which win over folders of the same name.
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
    """Plain settings with a new path for each file that is not there, but lies where it lay relative to the run folder.

    Args:
        values: settings by name.
        run: the run folder.
        before: its absolute path when the run was started; None if unknown.
    """

    def place(path: str) -> str | None:
        return moved_path(path, run, before)

    return _replaced(values, place, {})


def moved_path(path: str, run: Path, before: str | None) -> str | None:
    """The new place of a path that is not there, but lies where it lay relative to the run folder; None if it does not.

    Args:
        path: an absolute path.
        run: the run folder.
        before: its absolute path when the run was started; None if unknown.
    """
    if before is None or not os.path.isabs(path) or os.path.exists(path):
        return None
    other = Path(os.path.normpath(run.resolve() / os.path.relpath(path, before)))
    return str(other) if other.exists() else None


def missing_files(values: Mapping[str, Any]) -> dict[str, str]:
    """Setting → the first path that it names of a file that is not there."""
    found: dict[str, str] = {}
    for setting in NAMING:

        def place(path: str, setting: str = setting) -> None:
            looks_like_path = os.path.isabs(path) or path.endswith(".py")
            if looks_like_path and not named_path(path).exists():
                found.setdefault(setting, path)

        _replaced({setting: values[setting]} if setting in values else {}, place, {})
        text = str(values.get(setting, ""))
        if (
            setting in PROMPTS
            and text
            and not named_path(text).exists()
            and text not in builtin_names()
        ):
            found.setdefault(setting, text)
    return found


def same_but_for_paths(setting: str, one: str, other: str) -> bool:
    """True if two values of a setting differ in paths at most; the files themselves are compared by their content elsewhere."""
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
    """Plain settings with other words for the files that they name."""
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
    """As `replace_paths`; the text as it is where the new one cannot be read, such as one with a comma in the path of an option."""
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
