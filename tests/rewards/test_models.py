"""The weight-free rewards against goldens, gradients and invariances."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.images import from_uint8
from ddpo.rewards.card import Golden
from ddpo.rewards.catalog import CARDS
from ddpo.rewards.fixtures import FIXTURES, draw_fixture
from ddpo.rewards.models.darkness import mean_luma
from ddpo.rewards.models.jpeg import jpeg_bytes
from ddpo.rewards.models.symmetry import mirror_error
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

WEIGHT_FREE = [name for name, card in CARDS.items() if not card.weights]
GOLDENS = [(name, golden) for name in WEIGHT_FREE for golden in CARDS[name].golden]
BYTES = {"black": 4723, "grey": 4721, "gradient": 20406, "checker": 8819, "sin": 70761, "noise": 308188}
"""File lengths measured with Pillow 9.5, 10.4, 11.3, 12.0 and 13.0."""


def batch_of(*pictures: np.ndarray) -> ImageBatch:
    return ImageBatch(from_uint8(np.stack(pictures)), (Prompt("a cat"),) * len(pictures))


def random_batch(count: int, side: int = 24, seed: int = 0) -> ImageBatch:
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return ImageBatch(pixels, tuple(Prompt(f"picture {i}") for i in range(count)))


@pytest.mark.parametrize(("name", "golden"), GOLDENS, ids=[f"{name}-{golden.fixture}" for name, golden in GOLDENS])
def test_golden_scores_of_the_cards(name: str, golden: Golden) -> None:
    score = float(make_reward(name)(batch_of(draw_fixture(golden.fixture))).values[0])
    assert abs(score - golden.score) <= golden.tolerance


@pytest.mark.parametrize("fixture", BYTES)
def test_jpeg_is_exact_to_the_byte(fixture: str) -> None:
    assert jpeg_bytes(draw_fixture(fixture)) == BYTES[fixture]
    score = make_reward("compressibility")(batch_of(draw_fixture(fixture))).values
    assert round(float(score[0]) * 1000) == -BYTES[fixture]


def test_chroma_is_subsampled() -> None:
    file = io.BytesIO()
    Image.fromarray(draw_fixture("noise")).save(file, format="JPEG", quality=95, subsampling=0)
    assert file.tell() == 634785  # 4:4:4, for comparison: another size by far
    assert jpeg_bytes(draw_fixture("noise")) != 634785


def test_floats_are_rounded_not_truncated_before_encoding() -> None:
    pixels = from_uint8(draw_fixture("sin")[None])
    raised, lowered = (pixels + 0.4 / 255).clamp(max=1), (pixels - 0.4 / 255).clamp(min=0)  # truncating would lose a level in `lowered`
    reward = make_reward("incompressibility")
    for version in (raised, lowered):
        assert round(float(reward(ImageBatch(version, (Prompt(""),))).values[0]) * 1000) == BYTES["sin"]


def test_compressibility_is_minus_incompressibility() -> None:
    batch = random_batch(3)
    assert torch.equal(make_reward("compressibility")(batch).values, -make_reward("incompressibility")(batch).values)


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_a_score_does_not_depend_on_batch_mates_or_order(name: str) -> None:
    reward, batch = make_reward(name), random_batch(5)
    together = reward(batch).values
    alone = torch.cat([reward(batch[i : i + 1]).values for i in range(5)])
    assert torch.equal(together, alone)
    turned = ImageBatch(batch.pixels.flip(0), batch.prompts[::-1])
    assert torch.equal(reward(turned).values, together.flip(0))


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_input_is_left_alone_and_repetition_gives_the_same(name: str) -> None:
    reward, batch = make_reward(name), random_batch(2)
    before = batch.pixels.clone()
    assert torch.equal(reward(batch).values, reward(batch).values)
    assert torch.equal(batch.pixels, before)


@pytest.mark.parametrize("name", WEIGHT_FREE)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 2)])
def test_odd_sizes(name: str, shape: tuple[int, int]) -> None:
    batch = ImageBatch(torch.full((1, 3, *shape), 0.25), (Prompt(""),))
    assert torch.isfinite(make_reward(name)(batch).values).all()


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_differentiability_is_as_declared(name: str) -> None:
    batch = random_batch(2, side=8)
    batch.pixels.requires_grad_()
    values = make_reward(name)(batch).values
    assert values.requires_grad == CARDS[name].differentiable
    if CARDS[name].differentiable:
        values.sum().backward()
        assert batch.pixels.grad is not None
        assert float(batch.pixels.grad.abs().sum()) > 0


@pytest.mark.parametrize("function", [mirror_error, mean_luma])
def test_gradients_agree_with_finite_differences(function) -> None:
    pixels = torch.rand(2, 3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(function, (pixels,))


def test_luma_of_pure_colours() -> None:
    pixels = torch.eye(3).reshape(3, 3, 1, 1)
    assert mean_luma(pixels).tolist() == [0.299, 0.587, 0.114]


def test_mirror_error_by_hand() -> None:
    pixels = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert float(mirror_error(pixels)) == pytest.approx((1 + 0 + 1) / 3)


def test_uint8_wrap_around_is_not_ours() -> None:
    # On uint8 the original's difference 0 - 255 wraps to 1; black beside white is the least symmetric picture there is.
    picture = np.zeros((1, 2, 3), np.uint8)
    picture[:, 1] = 255
    assert float(make_reward("symmetry")(batch_of(picture)).values[0]) == -1.0


def test_every_fixture_is_a_512_uint8_picture() -> None:
    for name in FIXTURES:
        picture = draw_fixture(name)
        assert (picture.shape, picture.dtype) == ((512, 512, 3), np.uint8)
