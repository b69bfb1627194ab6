"""Checks of what is done with pixels: forms, rounding, scale, and that the batch is left as it was."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from PIL import Image

from ddpo.errors import ImageError, RewardFailure
from ddpo.images import from_images, from_uint8
from ddpo.rewards.check.definition import Fault, NotApplicable, check
from ddpo.rewards.check.subject import PROBE_NAMES, Subject, unequal
from ddpo.types import ImageBatch, Prompt

__all__ = ["CHECKS"]


@check("scores")
def input_unchanged(subject: Subject) -> str | None:
    """Scoring changes neither the pixels, as floats, bytes or Pillow's pictures, nor the prompts and their metadata."""
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
            raise Fault(f"the pixels of a batch made of {form}s were changed in place")
        if not np.array_equal(batch.uint8, array):
            raise Fault(f"the bytes of a batch made of {form}s were changed in place")
        if not np.array_equal(
            from_images(batch.images) if len({image.size for image in batch.images}) == 1 else [],
            array,
        ):
            raise Fault(f"the PIL pictures of a batch made of {form}s were changed in place")
    if [(prompt.text, dict(prompt.metadata)) for prompt in prompts] != kept:
        raise Fault("the metadata of a prompt was changed")
    return None


@check("scores")
def pixel_forms(subject: Subject) -> str | None:
    """The same pictures score the same as bytes, as floats, as PIL pictures, and in memory of another layout."""
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
def rounding(subject: Subject) -> str | None:
    """A reward of bytes rounds floats to the nearest byte (`batch.uint8`); it does not cut them off, nor scores them as floats."""
    _demand_deterministic(subject)
    if subject.card.pixels == "float":
        raise NotApplicable("the card says that floats are scored")
    exact = from_uint8(np.stack(subject.pictures))
    for name, shift in {"above": 0.4, "below": -0.4}.items():
        batch = ImageBatch((exact + shift / 255).clamp(0, 1), subject.prompts)
        found = subject.values(batch)
        subject.same_or_fault(found, subject.scores, f"with floats 0.4 of a level {name} its bytes")
    return None


@check("scores")
def pixel_scale(subject: Subject) -> str | None:
    """Floats on a 0-255 scale are refused, or score outside the card's range, or as on the right scale: never wrong but plausible."""
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
    raise Fault(
        f"scores them, within the card's range ({score}): let `batch.uint8` refuse them, or state a range that shows them"
    )


def _demand_deterministic(subject: Subject) -> None:
    if not subject.card.deterministic:
        raise NotApplicable("the card says that it is not deterministic")


CHECKS = (input_unchanged, pixel_forms, rounding, pixel_scale)
