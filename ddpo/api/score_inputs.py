"""Images of a caller with their prompts, for `ddpo.score`: places on the disk or in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpo.errors import PromptError

if TYPE_CHECKING:
    from ddpo.inputs.input_image import InputImage

__all__ = ["inputs_of", "one_each"]


def one_each(given: Any, count: int, single: bool, word: str) -> Any:
    """The prompts or metadata of `count` images, one for each; None for none.

    Raises:
        PromptError: one was given for many images, or many for one image.
    """
    if given is None:
        return None
    alone = isinstance(given, str | Mapping)
    if single and not alone:
        raise PromptError(f"one image takes one {word}; for several pass a list of images")
    if alone and not single:
        raise PromptError(
            f"{count} images came with one {word}; pass a list with one {word} for each image"
        )
    return [given] if alone else list(given)


def inputs_of(images: Any, prompts: str | Sequence[str] | None) -> Iterable[InputImage]:
    """The images with their prompts, read as needed.

    Raises:
        UserError: a place does not exist, or the prompts do not fit the images.
    """
    from ddpo.inputs.address import refuse_address

    places = [images] if isinstance(images, str | os.PathLike) else images
    if isinstance(places, list | tuple) and places and all(map(_is_place, places)):
        for place in places:
            refuse_address(place)
        return _files([Path(os.fsdecode(place)).expanduser() for place in places], prompts)
    return _in_memory(images, prompts)


def _is_place(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _files(places: Sequence[Path], prompts: str | Sequence[str] | None) -> Iterable[InputImage]:
    """The images of files, folders, tables and archives."""
    from ddpo.inputs.collection import image_source, with_prompts

    if prompts is None:
        return image_source(places)
    if isinstance(prompts, str):
        if Path(prompts).is_file():
            return image_source(places, prompts=Path(prompts))
        single = len(places) == 1 and not places[0].is_dir()
        source = image_source(places, prompt=prompts)
        one_each(prompts, len(source), single and len(source) == 1, "prompt")
        return source
    source = image_source(places)
    return with_prompts(source, list(prompts))


def _in_memory(images: Any, prompts: str | Sequence[str] | None) -> Iterable[InputImage]:
    """Images of Pillow, arrays and tensors."""
    from ddpo.api.images import pil_images
    from ddpo.inputs.input_image import InputImage
    from ddpo.types import Prompt

    found, single = pil_images(images)
    texts = one_each(prompts, len(found), single, "prompt")
    if texts is not None and len(texts) != len(found):
        raise PromptError(f"{len(found)} images came with {len(texts)} prompts")
    for place, image in enumerate(found):
        prompt = None if texts is None else Prompt(texts[place])
        yield InputImage(f"image {place}", prompt, image=image)
