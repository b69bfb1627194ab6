"""Checks of inputs: forms and modes of pixels, odd sizes, long and unusual prompts."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpo.errors import ImageError, RewardFailure
from ddpo.images import from_images, from_uint8, to_rgb
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check, failing
from ddpo.rewards.check.reward_under_test import (
    PROBE_NAMES,
    ImageArray,
    RewardUnderTest,
    first_difference,
    score_bounds,
)
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["CHECKS"]


@check("scores")
def input_unchanged(tested: RewardUnderTest) -> str | None:
    """Scoring changes neither the pixels nor the prompts and their metadata.

    The batches are made of floats, of bytes and of Pillow's images, each of which stays as it was.
    """
    prompts = [
        Prompt(p.text, {**copy.deepcopy(dict(p.metadata)), "check": {"list": [1, 2]}})
        for p in tested.prompts
    ]
    original = copy.deepcopy([(prompt.text, dict(prompt.metadata)) for prompt in prompts])
    array = np.stack(tested.images)
    images = [Image.fromarray(image) for image in array]
    batches = {
        "floats": ImageBatch(from_uint8(array), prompts),
        "bytes": ImageBatch.of_uint8(array.copy(), prompts),
        "PIL images": ImageBatch.of_images(images, prompts),
    }
    for form, batch in batches.items():
        # the floats of other batches are made during the call
        edits = batch.edits if form == "floats" else None
        tested.score(batch)
        if edits not in (None, batch.edits) or not torch.equal(batch.pixels, from_uint8(array)):
            raise CheckFailed(f"the pixels of a batch made of {form} were changed in place")
        if not np.array_equal(batch.uint8, array):
            raise CheckFailed(f"the bytes of a batch made of {form} were changed in place")
        if not _show(batch.images, array):
            raise CheckFailed(f"the PIL images of a batch made of {form} were changed in place")
    if [(prompt.text, dict(prompt.metadata)) for prompt in prompts] != original:
        raise CheckFailed("the metadata of a prompt was changed")
    return None


def _show(images: Sequence[Image.Image], array: NDArray[np.uint8]) -> bool:
    """True if PIL images have the size and the pixels of a uint8 `[batch, height, width, 3]`."""
    height, width = array.shape[1:3]
    same_size = all(image.size == (width, height) for image in images)
    return same_size and np.array_equal(from_images(images), array)


@check("scores")
def pixel_forms(tested: RewardUnderTest) -> str | None:
    """The same images score the same as bytes, as floats and as PIL images.

    Pixels in channels-last memory score the same as well.
    """
    _demand_deterministic(tested)
    array = np.stack(tested.images)
    images = [Image.fromarray(image) for image in array]
    strided = from_uint8(array).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    forms = {
        "float pixels": ImageBatch(from_uint8(array), tested.prompts),
        "PIL images": ImageBatch.of_images(images, tested.prompts),
        "pixels in channels-last memory": ImageBatch(strided, tested.prompts),
    }
    for name, batch in forms.items():
        scores = tested.values(batch)
        largest = tested.compare_scores(scores, tested.scores, f"as {name} instead of bytes")
    return largest


@check("scores")
def rounding(tested: RewardUnderTest) -> str | None:
    """A reward of bytes rounds floats to the nearest byte, as `batch.uint8` does.

    It neither truncates them nor scores them as floats.
    """
    _demand_deterministic(tested)
    if tested.card.pixels == "float":
        raise CheckSkipped("the card says that floats are scored")
    exact = from_uint8(np.stack(tested.images))
    for name, shift in {"above": 0.4, "below": -0.4}.items():
        batch = ImageBatch((exact + shift / 255).clamp(0, 1), tested.prompts)
        condition = f"with floats 0.4 of a level {name} its bytes"
        tested.compare_scores(tested.values(batch), tested.scores, condition)
    return None


@check("scores")
def pixel_scale(tested: RewardUnderTest) -> str | None:
    """Floats on a 0-255 scale never get a score that is wrong but plausible.

    They are refused, score outside the card's range, or score as on the right scale.
    """
    batch = ImageBatch(from_uint8(np.stack(tested.images)) * 255.0, tested.prompts)
    try:
        scores = tested.values(batch)
    except (ImageError, RewardFailure):
        return "refused"
    low, high = score_bounds(tested.card)
    for score in scores:
        if not low <= score <= high:  # as NaN is not
            return f"not refused, but {score:.5g} is outside the card's range"
    if first_difference(scores, tested.scores, tested.tolerance) is None:
        return "the scale does not matter to it"
    example = f"gradient {scores[PROBE_NAMES.index('gradient')]:.5g}"
    remedy = "let `batch.uint8` refuse them, or state a range that shows them"
    raise CheckFailed(f"scores them, within the card's range ({example}): {remedy}")


def _demand_deterministic(tested: RewardUnderTest) -> None:
    if not tested.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")


SIZES: Final = ((1, 1), (1, 4096), (4096, 1), (3, 5), (48, 64), (64, 48), (33, 17))  # height, width
ROTATED: Final = 6  # EXIF orientation of an image to be turned by 90 degrees clockwise
WORDS: Final = 1000
LAST: Final = 100
PROBE: Final = 4  # noise: an image on which few rewards have the same score for all prompts
TEXTS: Final = {
    "the empty prompt": "",
    "a prompt of spaces": "   ",
    "Chinese": "一只戴帽子的猫",
    "Arabic": "قطة ترتدي قبعة",
    "emoji with joiners": "👩‍🚀🏳️‍🌈 in space",
    "combining accents": "cafe\u0301 cre\u0300me",
    "control characters": "a\x00b\u200b\ufeff\nc\td",
}


@check("scores")
def picture_modes(tested: RewardUnderTest) -> str | None:
    """Grey, RGBA, palette, 16-bit, CMYK and EXIF-rotated images score as their RGB forms do."""
    _demand_deterministic(tested)
    prompt = tested.prompts[:1]
    for name, (image, equivalent) in _modes().items():
        score = tested.values(tested.batch([np.asarray(to_rgb(image))], prompt))
        expected = tested.values(tested.batch([equivalent], prompt))
        tested.compare_scores(score, expected, "instead of its RGB equivalent", [name])
    return None


def _modes() -> dict[str, tuple[Image.Image, ImageArray]]:
    """Name → an image of 24×32 and its RGB equivalent by the definition of its mode."""
    random = np.random.default_rng(2)
    grey = random.integers(0, 256, (24, 32)).astype(np.uint8)
    grey_rgb = np.repeat(grey[..., None], 3, axis=-1)
    color = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    # alpha of 0 or 255, so that nothing is rounded
    alpha = np.where(grey[..., None] > 100, 255, 0).astype(np.uint8)
    palette = random.integers(0, 256, (256, 3)).astype(np.uint8)
    indexed = Image.frombytes("P", (32, 24), grey.tobytes())
    indexed.putpalette(palette.tobytes())
    white = np.uint8(255)
    rgba = Image.fromarray(np.concatenate([color, alpha], axis=-1))
    inks = np.concatenate([white - color, np.zeros_like(alpha)], axis=-1)
    return {
        "grey": (Image.fromarray(grey), grey_rgb),
        "RGBA": (rgba, np.where(alpha == 255, color, white)),
        "palette": (indexed, palette[grey]),
        "16-bit grey": (Image.fromarray(grey.astype(np.uint16) * 257), grey_rgb),
        "CMYK": (Image.frombytes("CMYK", (32, 24), inks.tobytes()), color),
        "EXIF-rotated": (_rotated(color), np.ascontiguousarray(np.rot90(color, -1))),
    }


def _rotated(pixels: ImageArray) -> Image.Image:
    """A PNG image whose EXIF orientation asks for a rotation."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    Image.fromarray(pixels).save(file, format="PNG", exif=exif)
    file.seek(0)
    image = Image.open(file)
    image.load()
    return image


@check("scores")
def picture_sizes(tested: RewardUnderTest) -> str | None:
    """Images of unusual sizes get a finite score, or NaN with a reason.

    The sizes are 1×1, 1×4096, 4096×1, 3×5 and others that are not square.
    """
    batches = {}
    for height, width in SIZES:
        image = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
        batches[f"{height}×{width}"] = tested.batch([image] * 2, tested.prompts[:1] * 2)
    return _score_each(tested, batches)


@check("scores")
def prompt_texts(tested: RewardUnderTest) -> str | None:
    """Unusual prompts get a finite score, or NaN with a reason.

    Tried are the empty prompt, spaces, Chinese, Arabic, joined emoji, combining accents and control
    characters.
    """
    metadata = tested.prompts[0].metadata
    images = tested.images[:2]
    batches = {
        name: tested.batch(images, [Prompt(text, metadata)] * 2) for name, text in TEXTS.items()
    }
    return _score_each(tested, batches)


def _score_each(tested: RewardUnderTest, batches: Mapping[str, ImageBatch]) -> str:
    """The names of the batches whose first image got NaN with a reason.

    Raises:
        CheckFailed: the reward raises an error for a batch.
    """
    unscorable = []
    for name, batch in batches.items():
        with failing(f"{name}: "):
            output = tested.score(batch)
        if output.errors[0] is not None:
            unscorable.append(f"{name} ({output.errors[0]})")
    return f"unscorable: {', '.join(unscorable)}" if unscorable else "all are scored"


@check("scores")
def long_prompt(tested: RewardUnderTest) -> str | None:
    """A prompt of 1,000 words is scored as a whole, or reported as truncated.

    A truncated one has `parts["truncated"]` 1, and a short prompt has 0.
    """
    if "prompt" not in tested.card.inputs:
        raise CheckSkipped("the card says that prompts are not read")
    _demand_deterministic(tested)

    def score(words: Sequence[str]) -> RewardOutput:
        prompt = Prompt(" ".join(words), tested.prompts[0].metadata)
        return tested.score(tested.batch([tested.images[PROBE]], [prompt]))

    words = [f"word{i}" for i in range(WORDS)]
    others = [f"other{i}" for i in range(LAST)]
    whole = score(words)
    ends = [score(words[:-LAST] + others), score(words[:-LAST])]
    beginnings = [score(others + words[LAST:]), score(words[LAST:])]
    short = score(["a", "red", "fox"])
    if math.isnan(float(whole.values[0])):
        return f"unscorable: {whole.errors[0]}"
    if "truncated" in whole.parts:
        if float(short.parts["truncated"][0]) != 0.0:
            raise CheckFailed("parts['truncated'] is not 0 for a prompt of three words")
        if float(whole.parts["truncated"][0]) == 1.0:
            return "truncated, and reported as such"
    if not all(_same_score(whole, end) for end in ends):
        return "scored as a whole"
    if all(_same_score(whole, beginning) for beginning in beginnings):
        return "no word of it moves the score"
    ignored = f"the last {LAST} of {WORDS} words do not move the score"
    raise CheckFailed(f"{ignored}, and parts['truncated'] does not report it")


def _same_score(first: RewardOutput, second: RewardOutput) -> bool:
    return float(first.values[0]) == float(second.values[0])


CHECKS = (
    input_unchanged,
    pixel_forms,
    rounding,
    pixel_scale,
    picture_modes,
    picture_sizes,
    prompt_texts,
    long_prompt,
)
