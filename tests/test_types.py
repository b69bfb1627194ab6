"""The nouns: a batch in its three forms, prompts, outputs."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import ContractBroken, ImageError, PromptError, RewardFailure
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput

PROMPTS = tuple(Prompt(text) for text in "abcd")


def levels(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 5, 7, 3)).astype(np.uint8)


def made(form: str) -> ImageBatch:
    array = levels()
    context = Context(progress=0.25)
    if form == "uint8":
        return ImageBatch.of_uint8(array, PROMPTS, context)
    if form == "images":
        return ImageBatch.of_images([Image.fromarray(image) for image in array], PROMPTS, context)
    return ImageBatch(
        torch.from_numpy(array.transpose(0, 3, 1, 2).copy()).float() / 255, PROMPTS, context
    )


@pytest.mark.parametrize("form", ["uint8", "images", "pixels"])
@pytest.mark.parametrize("asked_first", ["uint8", "images", "pixels"])
def test_every_form_of_a_batch_holds_the_same_pixels(form: str, asked_first: str) -> None:
    batch = made(form)
    getattr(batch, asked_first)
    assert np.array_equal(batch.uint8, levels())
    assert torch.equal(
        batch.pixels, torch.from_numpy(levels().transpose(0, 3, 1, 2).copy()).float() / 255
    )
    assert [np.asarray(image).tolist() for image in batch.images] == levels().tolist()
    assert (batch.size, len(batch), batch.from_bytes) == ((5, 7), 4, form != "pixels")


@pytest.mark.parametrize("form", ["uint8", "images", "pixels"])
@pytest.mark.parametrize("asked_first", [None, "uint8", "images", "pixels"])
def test_parts_of_a_batch(form: str, asked_first: str | None) -> None:
    batch = made(form)
    if asked_first:
        getattr(batch, asked_first)
    for part, places in ((batch[1:3], [1, 2]), (batch[2:], [2, 3]), (batch.take([3, 0]), [3, 0])):
        assert np.array_equal(part.uint8, levels()[places])
        assert [prompt.text for prompt in part.prompts] == ["abcd"[place] for place in places]
        assert torch.equal(part.pixels, batch.pixels[places])
        assert (part.context, part.from_bytes, len(part.images)) == (
            Context(0.25),
            batch.from_bytes,
            2,
        )


def test_bytes_and_edits_in_place() -> None:
    batch = made("pixels")
    with pytest.raises(ValueError, match="read-only"):
        batch.uint8[:] = 0
    before = batch.edits
    batch[:2].pixels.mul_(0.5)
    assert batch.edits > before
    with torch.inference_mode():
        assert ImageBatch(torch.zeros(1, 3, 2, 2), PROMPTS[:1]).edits == 0


def test_what_is_no_batch_is_refused() -> None:
    with pytest.raises(ImageError, match="float32"):
        ImageBatch(torch.zeros(1, 3, 2, 2, dtype=torch.float64), PROMPTS[:1])
    with pytest.raises(ImageError, match="expected uint8"):
        ImageBatch.of_uint8(np.zeros((1, 3, 2, 2), np.uint8), PROMPTS[:1])
    with pytest.raises(ImageError, match="RGB images of one size"):
        ImageBatch.of_images([Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))], PROMPTS[:2])
    with pytest.raises(ImageError, match="RGB images of one size"):
        ImageBatch.of_images([], ())
    with pytest.raises(ImageError, match="4 images came with 3 prompts"):
        ImageBatch.of_uint8(levels(), PROMPTS[:3])


def test_a_prompt_is_nfc() -> None:
    decomposed = unicodedata.normalize("NFD", "Käfer")
    assert Prompt(decomposed) == Prompt("Käfer")
    assert Prompt(decomposed).id == Prompt("Käfer").id


def test_an_output_is_one_float32_score_per_image() -> None:
    for values in (torch.zeros(2, dtype=torch.float64), torch.zeros(2, 1)):
        with pytest.raises(ContractBroken):
            RewardOutput(values)
    with pytest.raises(ContractBroken):
        RewardOutput(torch.zeros(2), {"part": torch.zeros(3)})
    with pytest.raises(RewardFailure, match="image 1: a NaN needs a reason"):
        RewardOutput(torch.tensor([0.0, torch.nan]))


@pytest.mark.parametrize(
    "text", ["a smiling cat \ud83d", "\ude00 first", "a \ud83d cat", "bytes \udcff", "\ude00\ud83d"]
)
def test_half_a_character_is_no_prompt(text: str) -> None:
    with pytest.raises(
        PromptError,
        match=r"is not text: it holds half a character \(U\+D[0-9A-F]{3}, at character \d+\)",
    ) as caught:
        Prompt(text)
    str(caught.value).encode()  # it can be printed
    assert Prompt("a smiling cat \N{GRINNING FACE}").text.endswith("\N{GRINNING FACE}")
