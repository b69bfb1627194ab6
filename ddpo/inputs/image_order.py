"""Checks that the order of images is certain if prompts are given by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.inputs.image_files import natural_key
from ddpo.io.atomic import printable

__all__ = ["check_named_order", "check_order"]

DIGITS: Final = re.compile(r"[0-9]+")
ADVICE: Final = "give a table with the columns file and prompt instead"


def check_order(names: Sequence[str], prompts: Path) -> None:
    """Raises unless the images of one folder or archive have an unambiguous order.

    Their names may differ in words alone (alphabetical order) or in numbers alone (numerical
    order). Any other difference leaves the line of an image uncertain.

    Args:
        names: Paths relative to the folder, in the order of the lines.
        prompts: File of the lines, for messages.

    Raises:
        ConfigError: The order is uncertain; the message names two images and the remedy.
    """
    stems = [name.rpartition(".")[0] or name for name in names]
    numbered = [stem for stem in stems if DIGITS.search(stem)]
    if not numbered:
        _refuse_equal(stems, names, prompts)
        return
    shapes = {DIGITS.sub("0", stem): name for stem, name in zip(stems, names, strict=True)}
    if len(shapes) > 1:
        one, other = list(shapes.values())[:2]
        _refuse(prompts, f"which of {printable(one)} and {printable(other)} comes first")
    numbers = [tuple(int(part) for part in DIGITS.findall(stem)) for stem in stems]
    _refuse_equal(numbers, names, prompts)
    if list(names) != sorted(names, key=_path_key):
        _refuse(prompts, "whether their order or that of their numbers counts")
    _refuse_seeds_first(numbers, names, prompts)


def check_named_order(paths: Sequence[str], prompts: Path) -> None:
    """Raises if files named one by one are in the order of a shell's pattern.

    A shell expands `*.png` to 0.png, 1.png, 10.png, 2.png, which nobody means.

    Raises:
        ConfigError: The files are in alphabetical order, but not in that of their numbers.
    """
    naturally = sorted(paths, key=_path_key)
    if list(paths) == sorted(paths) and list(paths) != naturally:
        place = next(i for i, path in enumerate(paths) if path != naturally[i])
        _refuse(
            prompts,
            f"whether {printable(paths[place])} or {printable(naturally[place])} is image "
            f"{place + 1}: a shell's pattern sorts numbers as words",
        )


def _path_key(path: str) -> list[Any]:
    return [natural_key(part) for part in path.split("/")]


def _refuse_equal(keys: Sequence[object], names: Sequence[str], prompts: Path) -> None:
    """Raises for two images with equal numbers, or with equal names apart from the suffix."""
    first: dict[object, str] = {}
    for key, name in zip(keys, names, strict=True):
        other = first.setdefault(key, name)
        if other != name:
            _refuse(prompts, f"which of {printable(other)} and {printable(name)} comes first")


def _refuse_seeds_first(
    numbers: Sequence[tuple[int, ...]], names: Sequence[str], prompts: Path
) -> None:
    """Raises for names such as SEED_INDEX, whose first number does not count the images."""
    columns = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    counting = [sorted(column) == _run(min(column), len(column)) for column in columns]
    if any(counting) and not counting[0] and len(set(columns[0])) == len(names):
        _refuse(prompts, f"which number of {printable(names[0])} counts the images")


def _run(start: int, length: int) -> list[int]:
    return list(range(start, start + length))


def _refuse(prompts: Path, doubt: str) -> None:
    raise ConfigError(f"{prompts} gives prompts by line, but it is uncertain {doubt}; {ADVICE}")
