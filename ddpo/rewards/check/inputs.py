"""Checks of inputs: forms and modes of pixels, odd sizes, long and strange texts."""

from __future__ import annotations

import copy
import io
import math
from typing import Final

import numpy as np
import torch
from PIL import Image

from ddpo.errors import ImageError, RewardFailure, one_line
from ddpo.images import from_images, from_uint8, to_rgb
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, Picture, RewardUnderTest, unequal
from ddpo.types import ImageBatch, Prompt

__all__ = ["CHECKS"]


@check("scores")
def input_unchanged(subject: RewardUnderTest) -> str | None:
    """Scoring changes neither the pixels, in whatever form, nor the prompts and their metadata."""
    prompts = [
        Prompt(p.text, {**copy.deepcopy(dict(p.metadata)), "check": {"list": [1, 2]}})
        for p in subject.prompts
    ]
    kept = copy.deepcopy([(prompt.text, dict(prompt.metadata)) for prompt in prompts])
    array = np.stack(subject.pictures)
    floats = ImageBatch(from_uint8(array), prompts)
    of_bytes = ImageBatch.of_uint8(array.copy(), prompts)
    of_images = ImageBatch.of_images([Image.fromarray(picture) for picture in array], prompts)
    due = floats.pixels.clone()
    for form, batch in {"float": floats, "byte": of_bytes, "PIL picture": of_images}.items():
        edits = (
            batch.edits if batch is floats else None
        )  # of bytes, floats are made during the call
        subject.score(batch)
        if edits not in (None, batch.edits) or not torch.equal(batch.pixels, due):
            raise CheckFailed(f"the pixels of a batch made of {form}s were changed in place")
        if not np.array_equal(batch.uint8, array):
            raise CheckFailed(f"the bytes of a batch made of {form}s were changed in place")
        if not np.array_equal(
            from_images(batch.images) if len({image.size for image in batch.images}) == 1 else [],
            array,
        ):
            raise CheckFailed(f"the PIL pictures of a batch made of {form}s were changed in place")
    if [(prompt.text, dict(prompt.metadata)) for prompt in prompts] != kept:
        raise CheckFailed("the metadata of a prompt was changed")
    return None


@check("scores")
def pixel_forms(subject: RewardUnderTest) -> str | None:
    """The same images score the same as bytes, floats, PIL images, and in another memory layout."""
    _demand_deterministic(subject)
    array = np.stack(subject.pictures)
    strided = from_uint8(array).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    forms = {
        "float pixels": ImageBatch(from_uint8(array), subject.prompts),
        "PIL pictures": ImageBatch.of_images(
            [Image.fromarray(picture) for picture in array], subject.prompts
        ),
        "pixels in channels-last memory": ImageBatch(strided, subject.prompts),
    }
    for name, batch in forms.items():
        found = subject.values(batch)
        largest = subject.same_or_fault(found, subject.scores, f"as {name} instead of bytes")
    return largest


@check("scores")
def rounding(subject: RewardUnderTest) -> str | None:
    """A reward of bytes rounds floats to the nearest byte (`batch.uint8`) instead of truncating."""
    _demand_deterministic(subject)
    if subject.card.pixels == "float":
        raise CheckSkipped("the card says that floats are scored")
    exact = from_uint8(np.stack(subject.pictures))
    for name, shift in {"above": 0.4, "below": -0.4}.items():
        batch = ImageBatch((exact + shift / 255).clamp(0, 1), subject.prompts)
        found = subject.values(batch)
        subject.same_or_fault(found, subject.scores, f"with floats 0.4 of a level {name} its bytes")
    return None


@check("scores")
def pixel_scale(subject: RewardUnderTest) -> str | None:
    """Floats on a 0-255 scale are refused, or their score does not look plausible and wrong."""
    batch = ImageBatch(from_uint8(np.stack(subject.pictures)) * 255.0, subject.prompts)
    place = PROBE_NAMES.index("gradient")
    try:
        found = subject.values(batch)
    except (ImageError, RewardFailure):
        return "refused"
    low, high = subject.card.range
    wrong = [
        v
        for v in found
        if math.isnan(v) or (low is not None and v < low) or (high is not None and v > high)
    ]
    if wrong:
        return f"not refused, but {wrong[0]:.5g} is outside the card's range"
    if unequal(found, subject.scores, subject.tolerance) is None:
        return "the scale does not matter to it"
    score = f"{PROBE_NAMES[place]} {found[place]:.5g}"
    raise CheckFailed(
        f"scores them, within the card's range ({score}): let `batch.uint8` refuse them, "
        "or state a range that shows them"
    )


def _demand_deterministic(subject: RewardUnderTest) -> None:
    if not subject.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")


SIZES: Final = ((1, 1), (1, 4096), (4096, 1), (3, 5), (48, 64), (64, 48), (33, 17))  # height, width
ROTATED: Final = 6  # the EXIF orientation of a picture that is to be turned by 90 degrees clockwise
WORDS: Final = 1000
LAST: Final = 100
PICTURE: Final = 4  # noise: a picture on which most rewards have much to say
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
def picture_modes(subject: RewardUnderTest) -> str | None:
    """Grey, RGBA, palette, 16-bit, CMYK and EXIF-rotated images score as their RGB forms do."""
    if not subject.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")
    prompt = subject.prompts[:1]
    for name, (image, equivalent) in _modes().items():
        found = subject.values(subject.batch([np.asarray(to_rgb(image))], prompt))
        due = subject.values(subject.batch([equivalent], prompt))
        subject.same_or_fault(found, due, "instead of its RGB equivalent", [name])
    return None


def _modes() -> dict[str, tuple[Image.Image, Picture]]:
    """Name → an image of 24×32 and its RGB equivalent by the definition of its mode."""
    random = np.random.default_rng(2)
    grey = random.integers(0, 256, (24, 32)).astype(np.uint8)
    color = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    opaque = np.where(grey[..., None] > 100, 255, 0).astype(
        np.uint8
    )  # alpha of 0 or 255, so that nothing is rounded
    palette = random.integers(0, 256, (256, 3)).astype(np.uint8)
    indexed = Image.frombytes("P", (32, 24), grey.tobytes())
    indexed.putpalette(palette.tobytes())
    white = np.uint8(255)
    return {
        "grey": (Image.fromarray(grey), np.repeat(grey[..., None], 3, axis=-1)),
        "RGBA": (
            Image.fromarray(np.concatenate([color, opaque], axis=-1)),
            np.where(opaque == 255, color, white),
        ),
        "palette": (indexed, palette[grey]),
        "16-bit grey": (
            Image.fromarray(grey.astype(np.uint16) * 257),
            np.repeat(grey[..., None], 3, axis=-1),
        ),
        "CMYK": (
            Image.frombytes(
                "CMYK",
                (32, 24),
                np.concatenate([white - color, 0 * grey[..., None]], axis=-1).tobytes(),
            ),
            color,
        ),
        "EXIF-rotated": (_rotated(color), np.ascontiguousarray(np.rot90(color, -1))),
    }


def _rotated(picture: Picture) -> Image.Image:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = ROTATED
    Image.fromarray(picture).save(file, format="PNG", exif=exif)
    file.seek(0)
    image = Image.open(file)
    image.load()
    return image


@check("scores")
def picture_sizes(subject: RewardUnderTest) -> str | None:
    """Images of 1×1, 1×4096, 3×5 and other odd sizes get a finite score, or NaN with a reason."""
    unscorable = []
    for height, width in SIZES:
        picture = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
        try:
            output = subject.score(subject.batch([picture] * 2, subject.prompts[:1] * 2))
        except Exception as error:
            raise CheckFailed(f"{height}×{width}: {one_line(error)}") from error
        if output.errors[0] is not None:
            unscorable.append(f"{height}×{width} ({output.errors[0]})")
    return f"unscorable: {', '.join(unscorable)}" if unscorable else "all are scored"


@check("scores")
def prompt_texts(subject: RewardUnderTest) -> str | None:
    """Empty, Unicode and odd prompts get a finite score, or NaN with a reason."""
    unscorable = []
    metadata = subject.prompts[0].metadata
    for name, text in TEXTS.items():
        try:
            output = subject.score(
                subject.batch(subject.pictures[:2], [Prompt(text, metadata)] * 2)
            )
        except Exception as error:
            raise CheckFailed(f"{name}: {one_line(error)}") from error
        if output.errors[0] is not None:
            unscorable.append(f"{name} ({output.errors[0]})")
    return f"unscorable: {', '.join(unscorable)}" if unscorable else "all are scored"


@check("scores")
def long_prompt(subject: RewardUnderTest) -> str | None:
    """A prompt of 1,000 words is scored as a whole, or `parts["truncated"]` is 1 for it."""
    if "prompt" not in subject.card.inputs:
        raise CheckSkipped("the card says that prompts are not read")
    if not subject.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")
    words = [f"word{i}" for i in range(WORDS)]
    texts = {
        "whole": words,
        "other end": words[:-LAST] + [f"other{i}" for i in range(LAST)],
        "no end": words[:-LAST],
        "other beginning": [f"other{i}" for i in range(LAST)] + words[LAST:],
        "no beginning": words[LAST:],
    }
    picture, metadata = subject.pictures[PICTURE], subject.prompts[0].metadata
    outputs = {
        name: subject.score(subject.batch([picture], [Prompt(" ".join(part), metadata)]))
        for name, part in texts.items()
    }
    short = subject.score(subject.batch([picture], [Prompt("a red fox", metadata)]))
    scores = {name: float(output.values[0]) for name, output in outputs.items()}
    if math.isnan(scores["whole"]):
        return f"unscorable: {outputs['whole'].errors[0]}"
    reported = outputs["whole"].parts.get("truncated")
    if reported is not None and (float(reported[0]), float(short.parts["truncated"][0])) == (
        1.0,
        0.0,
    ):
        return "truncated, and said so"
    if reported is not None and float(short.parts["truncated"][0]) != 0.0:
        raise CheckFailed("parts['truncated'] is not 0 for a prompt of three words")
    ignored = scores["whole"] == scores["other end"] == scores["no end"]
    if ignored and (scores["other beginning"], scores["no beginning"]) != (scores["whole"],) * 2:
        raise CheckFailed(
            f"the last {LAST} of {WORDS} words do not move the score, "
            "and parts['truncated'] does not say so"
        )
    return "no word of it moves the score" if ignored else "scored as a whole"


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
