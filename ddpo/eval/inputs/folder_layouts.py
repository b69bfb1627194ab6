"""Layouts of image folders that refer to prompt lists, by folder names and numbers.

lists       one folder per prompt list with an image per prompt, `anime/00012.jpg`, as in HPSv2
subfolders  one folder per prompt, named after the prompt's id or its words: `a_red_fox/0.png`
numbers     the number of the prompt in the list, then the index of the image: `00012_3.png`,
            `00012/3.png`, `00012/samples/0003.png`, or `00012.png` for one image per prompt

The first layout that fits is used. Numbers count from 0 or from 1. Prompts that lie with
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
    """An image with its prompt and index."""

    image: InputImage
    text: str  # of the prompt
    index: int | None  # index among the images of the prompt; None if the layout has none


def place_by_layout(
    folder: str, images: Sequence[InputImage], lists: Mapping[str, Sequence[Prompt]]
) -> list[Placed] | None:
    """The images with their prompts by the first layout that fits; None if none does.

    Args:
        folder: place of the images.
        images: images of the folder.
        lists: name of a prompt list → its prompts, in order, with repetitions.

    Raises:
        ConfigError: a layout fits, but a name stands for several prompts, or for none.
    """
    names = {os.path.relpath(image.path, folder): image for image in images}
    every = [prompt for prompts in lists.values() for prompt in prompts]
    return (
        _place_by_lists(folder, names, lists)
        or _place_by_subfolders(folder, names, every)
        or _place_by_numbers(folder, names, every)
    )


def _place_by_lists(
    folder: str, names: Mapping[str, InputImage], lists: Mapping[str, Sequence[Prompt]]
) -> list[Placed] | None:
    """Images in folders named after the prompt lists; None if a folder has another name."""
    slugs = {_slug(name): name for name in lists}
    found: dict[str, dict[str, InputImage]] = {}
    for name, image in names.items():
        first, slash, rest = name.partition("/")
        if not slash or _slug(first) not in slugs:
            return None
        found.setdefault(first, {})[rest] = image
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
    """Images in folders named after prompts of the lists; None without such a folder.

    Images elsewhere are left out.

    Raises:
        ConfigError: the name of a folder stands for several prompts.
    """
    distinct = {prompt.id: prompt.text for prompt in prompts}
    slugs = Counter(_slug(text) for text in distinct.values())
    texts = {_slug(text): text for text in distinct.values()} | distinct
    found: dict[str, list[InputImage]] = {}
    for path, image in names.items():
        name, slash, _ = path.partition("/")
        if not slash:
            continue
        key = name if name in texts else _slug(name)
        if slugs[key] > 1:
            there = os.path.join(folder, name)
            raise ConfigError(
                f"the name of the folder {there} stands for {slugs[key]} prompts: "
                "name it after the prompt's id"
            )
        if key in texts:
            found.setdefault(texts[key], []).append(image)
    placed = [one for text, images in found.items() for one in _by_last_number(text, images)]
    return placed or None


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text.casefold()).strip("_")


def _by_last_number(text: str, images: Sequence[InputImage]) -> Iterator[Placed]:
    """Images indexed by the numbers at the end of their names, if these are all different."""
    ends = [re.search(r"(\d+)$", os.path.splitext(image.path)[0]) for image in images]
    numbers = [int(end[1]) for end in ends if end is not None]
    known = len(set(numbers)) == len(images)
    for place, image in enumerate(images):
        yield Placed(image, text, numbers[place] if known else None)


def _place_by_numbers(
    folder: str, names: Mapping[str, InputImage], prompts: Sequence[Prompt]
) -> list[Placed] | None:
    """Images placed by prompt numbers in their names; None unless all names have one such form.

    Raises:
        ConfigError: the first number is ambiguous, or a number exceeds the number of prompts.
    """
    pairs = _numbers([os.path.splitext(name)[0] for name in names])
    if pairs is None:
        return None
    first = _first_number(folder, [number for number, _ in pairs], len(prompts))
    most = 1 + max(index for _, index in pairs)
    repeats = _repeats(prompts)
    return [
        Placed(image, prompts[number - first].text, repeats[number - first] * most + index)
        for image, (number, index) in zip(names.values(), pairs, strict=True)
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
    low = min(numbers)
    high = max(numbers)
    if (low == 0 and high >= count) or high > count:
        raise ConfigError(
            f"{folder}: the images are of prompts {low} to {high} by their names, "
            f"but there are {count} prompts"
        )
    if low > 0 and high < count:
        raise ConfigError(
            f"{folder}: the names of the images go from prompt {low} to {high} of {count}, "
            "so they may count from 0 or from 1; give the prompts in a metadata.jsonl"
        )
    return 0 if low == 0 else 1


def _repeats(prompts: Sequence[Prompt]) -> list[int]:
    """For each place of a list, the number of earlier places with the same prompt."""
    counts: Counter[str] = Counter()
    found = []
    for prompt in prompts:
        found.append(counts[prompt.id])
        counts[prompt.id] += 1
    return found
