"""The key of a cached score: what changes it, what does not, and what cannot be cached."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpo.errors import ImageError
from ddpo.images import from_uint8
from ddpo.rewards.cache import cacheable, image_digests, score_key
from ddpo.rewards.card import RewardCard
from ddpo.types import NO_CONTEXT, Context, ImageBatch, Prompt

CARD = RewardCard(id="r", version="1", summary="s", load="m:a", family="test", flaws="none")
DIGEST = bytes(range(32))
CAT = Prompt("a cat")


def images(count: int = 3, height: int = 4, width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def prompts(count: int) -> list[Prompt]:
    return [Prompt("a cat")] * count


def key(
    *,
    identity: str = "i",
    digest: bytes = DIGEST,
    prompt: Prompt = CAT,
    card: RewardCard = CARD,
    context: Context = NO_CONTEXT,
) -> bytes:
    found = score_key(identity, digest, prompt, card, context)
    assert found is not None
    assert len(found) == 32
    return found


@pytest.mark.parametrize("exact", [False, True])
def test_a_digest_is_the_sha256_of_size_and_pixels(exact: bool) -> None:
    array = images()
    expected = [
        hashlib.sha256(
            b"ddpo picture uint8 height width 3" + struct.pack("<QQ", 4, 5) + p.tobytes()
        ).digest()
        for p in array
    ]
    assert image_digests(ImageBatch.of_uint8(array, prompts(3)), exact) == expected
    assert image_digests(ImageBatch(from_uint8(array), prompts(3)), exact) == expected
    strided = np.repeat(array, 2, axis=1)[:, ::2]
    assert image_digests(ImageBatch.of_uint8(strided, prompts(3)), exact) == expected


def test_every_pixel_and_the_size_count() -> None:
    array = images(1)
    seen = set(image_digests(ImageBatch.of_uint8(array, prompts(1)), exact=False))
    for place in np.ndindex(array.shape):
        other = array.copy()
        other[place] ^= 1
        seen.update(image_digests(ImageBatch.of_uint8(other, prompts(1)), exact=False))
    turned = ImageBatch.of_uint8(array.reshape(1, 5, 4, 3), prompts(1))
    seen.update(image_digests(turned, exact=False))
    assert len(seen) == 1 + array.size + 1


def test_floats_between_the_levels_count_only_for_a_reward_that_sees_them() -> None:
    array = images(2)
    pixels = from_uint8(array)
    moved = pixels.clone()
    moved[1, 0, 0, 0] = torch.nextafter(moved[1, 0, 0, 0], torch.tensor(0.5))
    plain, exact = (image_digests(ImageBatch(moved, prompts(2)), exact) for exact in (False, True))
    assert plain == image_digests(ImageBatch.of_uint8(array, prompts(2)), exact=False)
    assert exact[0] == plain[0]
    assert exact[1] != plain[1]
    moved_again = moved.clone()
    moved_again[1, 2, 3, 4] += 1e-3
    assert image_digests(ImageBatch(moved_again, prompts(2)), exact=True)[1] != exact[1]


def test_minus_zero_and_pixels_out_of_range_are_not_taken_for_levels() -> None:
    zero = torch.zeros(1, 3, 2, 2)
    digests = {
        image_digests(ImageBatch(pixels, prompts(1)), exact=True)[0]
        for pixels in (zero, -zero, zero + 2.0, zero + 1.0)
    }
    assert len(digests) == 4
    with pytest.raises(ImageError, match="must be in"):
        image_digests(ImageBatch(zero + 2.0, prompts(1)), exact=False)


def test_a_gradient_does_not_matter() -> None:
    pixels = from_uint8(images(1)) * 0.999
    plain = ImageBatch(pixels, prompts(1))
    variable = ImageBatch(pixels.clone().requires_grad_(), prompts(1))
    assert image_digests(plain, exact=True) == image_digests(variable, exact=True)


def test_each_component_changes_the_key() -> None:
    card = replace(CARD, inputs=("image", "prompt", "metadata", "context"), metadata=("count",))
    base = {
        "identity": "i",
        "digest": DIGEST,
        "prompt": Prompt("a cat", {"count": 2}),
        "card": card,
        "context": Context(0.25),
    }
    changes = [
        {"identity": "j"},
        {"digest": bytes(32)},
        {"prompt": Prompt("a dog", {"count": 2})},
        {"prompt": Prompt("a cat", {"count": 3})},
        {"prompt": Prompt("a cat", {"count": 2.0})},
        {"prompt": Prompt("a cat", {"count": "2"})},
        {"prompt": Prompt("a cat", {"count": None})},
        {"prompt": Prompt("a cat")},
        {"context": Context(0.5)},
        {"context": Context(0.0)},
        {"context": NO_CONTEXT},
        {"card": replace(card, inputs=("image", "prompt"))},
        {"card": replace(card, inputs=("image", "metadata"))},
    ]
    assert len({key(**base), *(key(**(base | change)) for change in changes)}) == 1 + len(changes)


def test_what_the_card_does_not_name_leaves_the_key_alone() -> None:
    other = key(prompt=Prompt("a dog"), context=Context(0.5))
    assert key(prompt=Prompt("a cat", {"count": 2})) == other
    card = replace(CARD, inputs=("image", "metadata"), metadata=("count",))
    assert key(card=card, prompt=Prompt("a", {"count": 2, "seed": 1})) == key(
        card=card, prompt=Prompt("b", {"seed": 2, "count": 2})
    )
    every = replace(CARD, inputs=("image", "metadata"))
    assert key(card=every, prompt=Prompt("", {"count": 2, "seed": 1})) == key(
        card=every, prompt=Prompt("", {"seed": 1, "count": 2})
    )
    assert key(card=every, prompt=Prompt("", {"count": 2})) != key(
        card=every, prompt=Prompt("", {"count": 2, "seed": 1})
    )


def test_a_prompt_counts_in_its_composed_form() -> None:
    card = replace(CARD, inputs=("image", "prompt"))
    assert key(card=card, prompt=Prompt("caf\u00e9")) == key(card=card, prompt=Prompt("cafe\u0301"))
    assert key(card=card, prompt=Prompt("cafe")) != key(card=card, prompt=Prompt("caf\u00e9"))


def test_shifted_boundaries_make_another_key() -> None:
    assert key(identity="ab", digest=b"c") != key(identity="a", digest=b"bc")
    with_prompt, with_metadata = (
        replace(CARD, inputs=("image", name)) for name in ("prompt", "metadata")
    )
    assert key(card=with_prompt, prompt=Prompt("{}")) != key(
        card=with_metadata, prompt=Prompt("{}")
    )
    both = replace(CARD, inputs=("image", "prompt", "metadata"))
    assert key(card=both, prompt=Prompt("metadata{}")) != key(
        card=both, prompt=Prompt("", {"metadata": {}})
    )


@pytest.mark.parametrize(
    "value", [np.zeros(2000), {1: "a"}, {"a": [{2: 3}]}, object(), {"a"}, b"bytes"]
)
def test_metadata_beyond_json_cannot_be_cached(value: object) -> None:
    card = replace(CARD, inputs=("image", "metadata"))
    assert score_key("i", DIGEST, Prompt("", {"value": value}), card, NO_CONTEXT) is None
    # this reward does not read it
    assert score_key("i", DIGEST, Prompt("", {"value": value}), CARD, NO_CONTEXT) is not None


def test_which_rewards_are_cached() -> None:
    assert cacheable(CARD)
    assert not cacheable(replace(CARD, deterministic=False))
    assert not cacheable(replace(CARD, batch_invariant=False))
    assert not cacheable(replace(CARD, inputs=("image", "group")))
    assert not cacheable(replace(CARD, cache=False))
