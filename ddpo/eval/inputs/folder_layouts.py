"""Layouts of image folders in which prompt lists tell the prompts, by folder names and numbers.

lists       one folder per prompt list with an image per prompt, `anime/00012.jpg`, as HPSv2 has it
subfolders  one folder per prompt, called by the prompt's id or its words: `a_red_fox/0.png`
numbers     the number of the prompt in the list, and which image of it: `00012_3.png`,
            `00012/3.png`, `00012/samples/0003.png`, or `00012.png` for one image per prompt

The first that fits is taken, in this order. Numbers count from 0 or from 1. Prompts that lie with
the images come before all of these (`ddpo.inputs.folder_prompts`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage
from ddpo.types import Prompt

__all__ = ["Placed", "place_by_layout"]

NUMBERED: Final = re.compile(r"(\d+)\D(?:.*\D)?(\d+)")
SINGLE: Final = re.compile(r"(\d+)")
IN_FOLDER: Final = re.compile(r"(\d+)/(?:samples/|images/)?(?:[^/]*\D)?(\d+)")


@dataclass(frozen=True, slots=True)
class Placed:
    """An image and where it belongs."""

    picture: InputImage
    text: str  # of the prompt
    index: int | None  # which image of the prompt; None where the layout does not say


def place_by_layout(
    folder: str, pictures: Sequence[InputImage], lists: Mapping[str, Sequence[Prompt]]
) -> list[Placed] | None:
    """The images with their prompts by the first layout that fits; None if none does.

    Args:
        folder: where the images are.
        pictures: images of the folder.
        lists: name of a prompt list → its prompts, in order, each as often as the list names it.

    Raises:
        ConfigError: a layout fits, but its names stand for several prompts, or for none.
    """
    names = {os.path.relpath(picture.path, folder): picture for picture in pictures}
    every = [prompt for prompts in lists.values() for prompt in prompts]
    return (
        _place_by_lists(folder, names, lists)
        or _place_by_subfolders(folder, names, every)
        or _place_by_numbers(folder, names, every)
    )


def _place_by_lists(
    folder: str, names: Mapping[str, InputImage], lists: Mapping[str, Sequence[Prompt]]
) -> list[Placed] | None:
    """By folders that are called as the prompt lists; None if one is not."""
    slugs = {_slug(name): name for name in lists}
    found: dict[str, dict[str, InputImage]] = {}
    for name, picture in names.items():
        first, slash, rest = name.partition("/")
        if not slash or _slug(first) not in slugs:
            return None
        found.setdefault(first, {})[rest] = picture
    placed: list[Placed] = []
    for first, inner in found.items():
        there = os.path.join(folder, first)
        numbered = _place_by_numbers(there, inner, lists[slugs[_slug(first)]])
        if numbered is None:
            return None
        placed += numbered
    return placed


def _place_by_subfolders(
    folder: str, names: Mapping[str, InputImage], prompts: Sequence[Prompt]
) -> list[Placed] | None:
    """By folders that are called by prompts of the lists; None if none is. Others are left out.

    Raises:
        ConfigError: the name of a folder stands for several prompts.
    """
    distinct = {prompt.id: prompt.text for prompt in prompts}
    slugs = Counter(_slug(text) for text in distinct.values())
    texts = {_slug(text): text for text in distinct.values()} | distinct
    found: dict[str, list[InputImage]] = {}
    for path, picture in names.items():
        name, slash, _ = path.partition("/")
        if not slash:
            continue
        key = name if name in texts else _slug(name)
        if slugs[key] > 1:
            there = os.path.join(folder, name)
            raise ConfigError(
                f"the name of the folder {there} stands for {slugs[key]} prompts: call it by the prompt's id"
            )
        if key in texts:
            found.setdefault(texts[key], []).append(picture)
    placed = [one for text, pictures in found.items() for one in _by_last_number(text, pictures)]
    return placed or None


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text.casefold()).strip("_")


def _by_last_number(text: str, pictures: Sequence[InputImage]) -> Iterator[Placed]:
    """With the numbers at the end of the names as indices, if all names end in different ones."""
    ends = [re.search(r"(\d+)$", os.path.splitext(picture.path)[0]) for picture in pictures]
    numbers = [int(end[1]) for end in ends if end is not None]
    known = len(set(numbers)) == len(pictures)
    for place, picture in enumerate(pictures):
        yield Placed(picture, text, numbers[place] if known else None)


def _place_by_numbers(
    folder: str, names: Mapping[str, InputImage], prompts: Sequence[Prompt]
) -> list[Placed] | None:
    """By the numbers of prompts in names; None if not all images have names of one such form.

    Raises:
        ConfigError: it cannot be told from where they are counted, or there are not so many prompts.
    """
    pairs = _numbers([os.path.splitext(name)[0] for name in names])
    if pairs is None:
        return None
    first = _first_number(folder, [number for number, _ in pairs], len(prompts))
    most = 1 + max(index for _, index in pairs)
    repeats = _repeats(prompts)
    return [
        Placed(
            picture,
            prompts[number - first].text,
            repeats[number - first] * most + index,
        )
        for picture, (number, index) in zip(names.values(), pairs, strict=True)
    ]


def _numbers(stems: Sequence[str]) -> list[tuple[int, int]] | None:
    """The number of the prompt and the index in each name; None if a name has another form."""
    for form in (NUMBERED, SINGLE, IN_FOLDER):
        found = [form.fullmatch(stem) for stem in stems]
        matches = [match for match in found if match is not None]
        if len(matches) == len(stems) and (form is IN_FOLDER or not any("/" in s for s in stems)):
            return [(int(match[1]), 0 if form is SINGLE else int(match[2])) for match in matches]
    return None


def _first_number(folder: str, numbers: Sequence[int], count: int) -> int:
    """The number of the first prompt: 0 or 1."""
    low, high = min(numbers), max(numbers)
    if (low == 0 and high >= count) or high > count:
        raise ConfigError(
            f"{folder}: the images are of prompts {low} to {high} by their names, but there are {count} prompts"
        )
    if low > 0 and high < count:
        raise ConfigError(
            f"{folder}: the names of the images go from prompt {low} to {high} of {count}: "
            "it cannot be told whether they count from 0 or from 1; "
            "give the prompts in a metadata.jsonl"
        )
    return 0 if low == 0 else 1


def _repeats(prompts: Sequence[Prompt]) -> list[int]:
    """For each prompt of a list, how often it stands there before."""
    counts: Counter[str] = Counter()
    found = []
    for prompt in prompts:
        found.append(counts[prompt.id])
        counts[prompt.id] += 1
    return found
