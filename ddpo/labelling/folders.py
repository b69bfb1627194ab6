"""Pairs of two folders, tables or archives of images, matched by prompt or by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ddpo.errors import ConfigError
from ddpo.eval.inputs.image_folders import find_images
from ddpo.images import pixels_sha256, save_png
from ddpo.inputs.collection import image_source
from ddpo.inputs.input_image import InputImage
from ddpo.io.sync import make_folder
from ddpo.labelling.design import seeded
from ddpo.labelling.pair import LabelPair

__all__ = ["folder_pairs", "place_of"]

COPIES: Final = "-images"
"""End of the folder beside a preference file with copies of images that are in no file."""
Matched = tuple[str | None, int, InputImage, InputImage]
"""Prompt, index, and both images."""


def folder_pairs(first: Path, second: Path, count: int, seed: int, out: Path) -> list[LabelPair]:
    """Up to `count` pairs, spread evenly over the prompts, the same for the same seed.

    Args:
        first: folder, table or archive of one model's images.
        second: that of the other model.
        count: largest number of pairs.
        seed: seed of the choice.
        out: preference file, beside which images without a file of their own are copied.

    Raises:
        ConfigError: nothing matches, or both places are one.
        ImageError: a place holds no image, or an image cannot be read.
        PromptError: some images have a prompt, and others have none.
    """
    if os.path.realpath(first) == os.path.realpath(second):
        raise ConfigError(f"{first} and {second} are the same images: give two places")
    names = _model_names(first, second)
    found = spread(_matched(first, second), seed)[:count]
    return [_pair(one, names, out) for one in found]


def spread(matched: Sequence[Matched], seed: int) -> list[Matched]:
    """All pairs in random order, the first of each prompt before the second of any."""
    random = seeded(seed, "choice")
    rounds: dict[str, int] = {}
    keyed = []
    for place in random.permutation(len(matched)):
        prompt = matched[place][0] or f"\0{place}"
        rounds[prompt] = rounds.get(prompt, 0) + 1
        keyed.append((rounds[prompt], matched[place]))
    return [one for _, one in sorted(keyed, key=lambda item: item[0])]


def place_of(path: Path, folder: Path) -> str:
    """An image's path relative to a folder that it is in, otherwise its absolute path."""
    place = Path(os.path.abspath(path))
    base = Path(os.path.abspath(folder))
    return place.relative_to(base).as_posix() if place.is_relative_to(base) else str(place)


def _matched(first: Path, second: Path) -> list[Matched]:
    """The images of both places by prompt and index, or by name where no image has a prompt."""
    sources = [list(image_source([place])) for place in (first, second)]
    if not any(image.prompt for source in sources for image in source):
        by_name = list(_by_name(sources[0], sources[1], first, second))
        if by_name:
            return by_name
    ours, theirs = (
        {(one.prompt.id, one.index): one for one in find_images(place.name, place, {}).files}
        for place in (first, second)
    )
    common = [key for key in ours if key in theirs]
    if not common:
        raise ConfigError(
            f"no image of {second} has the prompt and index of one of {first}: nothing can be "
            "compared"
        )
    originals = [{image.file: image for image in source} for source in sources]
    return [
        (
            ours[key].prompt.text,
            key[1],
            originals[0].get(ours[key].image.file, ours[key].image),
            originals[1].get(theirs[key].image.file, theirs[key].image),
        )
        for key in common
    ]


def _by_name(
    ours: Sequence[InputImage], theirs: Sequence[InputImage], first: Path, second: Path
) -> Iterator[Matched]:
    """Images of the same path in both places, whatever their suffix."""
    others = {_name(image, second): image for image in theirs}
    for image in ours:
        other = others.get(_name(image, first))
        if other is not None:
            yield None, 0, image, other


def _name(image: InputImage, place: Path) -> str:
    return os.path.splitext(os.path.relpath(image.file, place))[0]


def _model_names(first: Path, second: Path) -> tuple[str, str]:
    """The names of the places, with their parents where they are the same."""
    short = (first.resolve().name, second.resolve().name)
    return short if short[0] != short[1] else (str(first), str(second))


def _pair(one: Matched, names: tuple[str, str], out: Path) -> LabelPair:
    prompt, index, ours, theirs = one
    image_a, sha256_a = _placed(ours, out)
    image_b, sha256_b = _placed(theirs, out)
    return LabelPair(
        *(prompt, "", index, *names, "", "", image_a, image_b, sha256_a, sha256_b),
    )


def _placed(image: InputImage, out: Path) -> tuple[str, str]:
    """The path of an image for the preference file, and the digest of its pixels.

    One that is in a table or archive is copied beside the file.
    """
    pixels = image.load()
    digest = pixels_sha256(np.asarray(pixels))
    path = Path(image.path)
    if image.data is not None:
        path = out.with_name(f"{out.stem}{COPIES}") / f"{digest}.png"
        if not path.exists():
            make_folder(path.parent)
            save_png(pixels, path)
    return place_of(path, out.parent), digest
