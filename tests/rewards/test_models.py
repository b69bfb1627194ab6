"""The weight-free rewards against goldens, gradients and invariances."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from ddpo.images import from_uint8
from ddpo.rewards.card import Golden
from ddpo.rewards.cards import CARDS
from ddpo.rewards.fixtures import FIXTURES, draw_fixture
from ddpo.rewards.models.contrast import rms_contrast
from ddpo.rewards.models.darkness import mean_luma
from ddpo.rewards.models.edges import mean_gradient
from ddpo.rewards.models.frequency import high_frequency_share
from ddpo.rewards.models.jpeg import jpeg_bytes
from ddpo.rewards.models.saturation import mean_saturation
from ddpo.rewards.models.sharpness import laplacian_variance
from ddpo.rewards.models.symmetry import mirror_error, rotation_error
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

MEASURES = [
    mirror_error,
    rotation_error,
    mean_luma,
    rms_contrast,
    mean_saturation,
    laplacian_variance,
    mean_gradient,
    high_frequency_share,
]
WEIGHT_FREE = [name for name, card in CARDS.items() if not card.weights]
GOLDENS = [(name, golden) for name in WEIGHT_FREE for golden in CARDS[name].golden]
BYTES = {
    "black": 4723,
    "grey": 4721,
    "gradient": 20406,
    "checker": 8819,
    "sin": 70761,
    "noise": 308188,
}
"""File lengths measured with Pillow 9.5, 10.4, 11.3, 12.0 and 13.0."""


def batch_of(*images: np.ndarray) -> ImageBatch:
    return ImageBatch(from_uint8(np.stack(images)), (Prompt("a cat"),) * len(images))


def random_batch(count: int, side: int = 24, seed: int = 0) -> ImageBatch:
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return ImageBatch(pixels, tuple(Prompt(f"picture {i}") for i in range(count)))


@pytest.mark.parametrize(
    ("name", "golden"), GOLDENS, ids=[f"{name}-{golden.fixture}" for name, golden in GOLDENS]
)
def test_golden_scores_of_the_cards(name: str, golden: Golden) -> None:
    score = float(make_reward(name)(batch_of(draw_fixture(golden.fixture))).values[0])
    assert abs(score - golden.score) <= golden.tolerance


@pytest.mark.parametrize("fixture", BYTES)
def test_jpeg_is_exact_to_the_byte(fixture: str) -> None:
    assert jpeg_bytes(Image.fromarray(draw_fixture(fixture))) == BYTES[fixture]
    score = make_reward("compressibility")(batch_of(draw_fixture(fixture))).values
    assert round(float(score[0]) * 1000) == -BYTES[fixture]


def test_chroma_is_subsampled() -> None:
    file = io.BytesIO()
    Image.fromarray(draw_fixture("noise")).save(file, format="JPEG", quality=95, subsampling=0)
    assert file.tell() == 634785  # 4:4:4, for comparison: another size by far
    assert jpeg_bytes(Image.fromarray(draw_fixture("noise"))) != 634785


def test_floats_are_rounded_not_truncated_before_encoding() -> None:
    pixels = from_uint8(draw_fixture("sin")[None])
    raised = (pixels + 0.4 / 255).clamp(max=1)  # truncating would lose a level in `lowered`
    lowered = (pixels - 0.4 / 255).clamp(min=0)
    reward = make_reward("incompressibility")
    for version in (raised, lowered):
        assert (
            round(float(reward(ImageBatch(version, (Prompt(""),))).values[0]) * 1000)
            == BYTES["sin"]
        )


def test_compressibility_is_minus_incompressibility() -> None:
    batch = random_batch(3)
    assert torch.equal(
        make_reward("compressibility")(batch).values,
        -make_reward("incompressibility")(batch).values,
    )


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_a_score_does_not_depend_on_batch_mates_or_order(name: str) -> None:
    reward = make_reward(name)
    batch = random_batch(5)
    together = reward(batch).values
    alone = torch.cat([reward(batch[i : i + 1]).values for i in range(5)])
    assert torch.equal(together, alone)
    turned = ImageBatch(batch.pixels.flip(0), batch.prompts[::-1])
    assert torch.equal(reward(turned).values, together.flip(0))


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_input_is_left_alone_and_repetition_gives_the_same(name: str) -> None:
    reward = make_reward(name)
    batch = random_batch(2)
    before = batch.pixels.clone()
    assert torch.equal(reward(batch).values, reward(batch).values)
    assert torch.equal(batch.pixels, before)


@pytest.mark.parametrize("name", WEIGHT_FREE)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 2), (1, 4096)])
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


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_no_images_no_scores(name: str) -> None:
    values = make_reward(name)(ImageBatch(torch.zeros(0, 3, 4, 4), ())).values
    assert (values.dtype, tuple(values.shape)) == (torch.float32, (0,))


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_bytes_and_floats_of_one_image_score_alike(name: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    of_bytes = make_reward(name)(ImageBatch.of_uint8(image, (Prompt(""),) * 2)).values
    assert torch.equal(of_bytes, make_reward(name)(batch_of(*image)).values)


@pytest.mark.parametrize("function", MEASURES)
def test_gradients_agree_with_finite_differences(function) -> None:
    pixels = torch.rand(
        2,
        3,
        3,
        4,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(1),
        requires_grad=True,
    )
    assert torch.autograd.gradcheck(function, (pixels,))


@pytest.mark.parametrize("function", MEASURES)
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_gradients_of_a_flat_image_are_finite(function, level: float) -> None:
    pixels = torch.full((1, 3, 5, 4), level, requires_grad=True)
    function(pixels).sum().backward()
    assert pixels.grad is not None
    assert torch.isfinite(pixels.grad).all()


def test_luma_of_pure_colours() -> None:
    pixels = torch.eye(3).reshape(3, 3, 1, 1)
    assert mean_luma(pixels).tolist() == [0.299, 0.587, 0.114]


def test_mirror_error_by_hand() -> None:
    pixels = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert float(mirror_error(pixels)) == pytest.approx((1 + 0 + 1) / 3)


def test_uint8_wrap_around_is_not_ours() -> None:
    # On uint8 the original's difference 0 - 255 wraps to 1; black beside white is the least
    # symmetric image.
    image = np.zeros((1, 2, 3), np.uint8)
    image[:, 1] = 255
    assert float(make_reward("symmetry")(batch_of(image)).values[0]) == -1.0


def test_every_fixture_is_a_512_uint8_image() -> None:
    for name in FIXTURES:
        image = draw_fixture(name)
        assert (image.shape, image.dtype) == ((512, 512, 3), np.uint8)


def test_rotation_by_hand() -> None:
    pixels = torch.tensor([[0.0, 0.5], [0.0, 1.0]]).expand(1, 3, 2, 2)  # turned: 1, 0 / 0.5, 0
    assert float(rotation_error(pixels)) == pytest.approx((1 + 0.25 + 0.25 + 1) / 4)


def test_a_mirrored_pair_is_symmetric_but_not_under_rotation() -> None:
    half = torch.rand(1, 3, 8, 4, generator=torch.Generator().manual_seed(2))
    pixels = torch.cat([half, half.flip(-1)], dim=-1)
    assert float(mirror_error(pixels)) == 0
    assert float(rotation_error(pixels)) > 0.01
    assert float(rotation_error(torch.cat([half, half.flip(-1, -2)], dim=-1))) == 0


class LargestCopy(TorchDispatchMode):
    """The number of values of the largest float64 tensor that is made inside."""

    values = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, given: Any = (), more: Any = None
    ) -> Any:
        made = function(*given, **(more or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
            self.values = max(self.values, made.numel())
        return made


@pytest.mark.parametrize(("measure", "axes"), [(mirror_error, (-1,)), (rotation_error, (-2, -1))])
def test_symmetry_of_a_large_image_needs_copies_of_blocks_only(
    measure: Callable[[torch.Tensor], torch.Tensor], axes: tuple[int, ...]
) -> None:
    image = torch.rand(1, 3, 1500, 2999, generator=torch.Generator().manual_seed(3))
    exact = image.numpy().astype(np.float64)
    expected = np.square(exact - np.flip(exact, axes)).mean()
    with LargestCopy() as copy:
        found = measure(image)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert 0 < copy.values < image.numel() / 2
    image.requires_grad_(True)
    measure(image).sum().backward()
    slope = 4 * (exact - np.flip(exact, axes)) / exact.size  # of both squares with a pixel
    assert image.grad is not None
    np.testing.assert_allclose(image.grad.numpy(), slope, rtol=1e-4, atol=1e-12)


def test_laplacian_of_one_bright_pixel_by_hand() -> None:
    pixels = torch.zeros(1, 3, 5, 5)
    pixels[..., 2, 2] = (
        1.0  # the Laplacian is -4 at the pixel, 1 at its four neighbours, and its mean is 0
    )
    assert float(laplacian_variance(pixels)) == pytest.approx(255**2 * (16 + 4) / 25)


def test_a_ramp_has_its_slope_as_gradient_and_no_edge_at_the_border() -> None:
    pixels = (torch.arange(10) * 0.1)[None, None, None].expand(1, 3, 6, 10)
    # inside the slope is 0.1; in the first and last column one side is replicated, so half of it
    assert float(mean_gradient(pixels)) == pytest.approx((8 * 0.1 + 2 * 0.05) / 10)
    assert float(mean_gradient(pixels.transpose(-1, -2))) == pytest.approx(
        (8 * 0.1 + 2 * 0.05) / 10
    )


def test_sobel_and_laplacian_agree_with_scipy_on_noise() -> None:
    from scipy import ndimage

    image = np.random.default_rng(5).random((3, 17, 23))
    grey = np.tensordot([0.299, 0.587, 0.114], image, 1)
    pixels = torch.from_numpy(image)[None]
    sobel = (
        np.hypot(
            ndimage.sobel(grey, 0, mode="nearest"), ndimage.sobel(grey, 1, mode="nearest")
        ).mean()
        / 8
    )
    assert float(mean_gradient(pixels)) == pytest.approx(sobel, rel=1e-12)
    assert float(laplacian_variance(pixels)) == pytest.approx(
        ndimage.laplace(255 * grey, mode="nearest").var(), rel=1e-12
    )


@pytest.mark.parametrize(("period", "share"), [(3, 1.0), (8, 0.0)])
def test_waves_above_and_below_half_of_nyquist(period: int, share: float) -> None:
    """A wave of 3 pixels has 1/3 cycle per pixel and one of 8 has 1/8; the limit is 1/4.

    The window spreads each over its neighbours.
    """
    wave = 0.5 + 0.3 * torch.cos(2 * torch.pi * torch.arange(72).double() / period)
    for plane in (wave.expand(48, 72), wave.expand(48, 72).T):
        assert float(high_frequency_share(plane.expand(1, 3, *plane.shape))) == pytest.approx(
            share, abs=1e-6
        )


@pytest.mark.parametrize("shape", [(16, 24), (17, 23), (1, 5)])
def test_the_share_of_white_noise_is_that_of_the_frequencies(shape: tuple[int, int]) -> None:
    """All frequencies by NumPy, on odd and even sides.

    The share of much white noise is an area of the spectrum: a square without a disc.
    """
    image = np.random.default_rng(6).random((3, *shape))
    plane = np.tensordot([0.299, 0.587, 0.114], image, 1)
    window = np.outer(*(np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 for side in shape))
    power = np.abs(np.fft.fft2(window * (plane - np.average(plane, weights=window)))) ** 2
    fine = (
        np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij"))
        > 0.25
    )
    assert float(high_frequency_share(torch.from_numpy(image)[None])) == pytest.approx(
        power[fine].sum() / power.sum(), rel=1e-6
    )
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert float(high_frequency_share(noise)) == pytest.approx(1 - np.pi / 16, abs=0.01)


def test_contrast_by_hand() -> None:
    pixels = torch.tensor([0.0, 1.0, 1.0, 1.0]).expand(1, 3, 1, 4)  # variance p(1 - p) with p = 3/4
    assert float(rms_contrast(pixels)) == pytest.approx((3 / 16) ** 0.5)


def test_saturation_agrees_with_the_standard_library() -> None:
    import colorsys

    colors = torch.rand(50, 3, generator=torch.Generator().manual_seed(4)).double()
    colors[:3] = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.3, 0.3], [0.01, 0.0, 0.0]])
    expected = sum(colorsys.rgb_to_hsv(*color)[1] for color in colors.tolist()) / 50
    assert float(mean_saturation(colors.T.reshape(1, 3, 5, 10))) == pytest.approx(
        expected, rel=1e-12
    )


def test_entropy_by_hand() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    quarters = np.zeros((4, 4, 3), np.uint8)
    quarters[0] = 80  # shares 1/4, 1/4, 1/2: 1.5 bits
    quarters[1] = 160
    assert float(make_reward("entropy")(batch_of(levels)).values[0]) == 8.0
    assert float(make_reward("entropy")(batch_of(quarters)).values[0]) == 1.5


def test_a_large_batch_on_many_threads_scores_as_one_by_one() -> None:
    batch = random_batch(6, side=96)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)  # torch may split a reduction among threads, by the batch size
        for name in WEIGHT_FREE:
            reward = make_reward(name)
            assert torch.equal(
                reward(batch).values, torch.cat([reward(batch[i : i + 1]).values for i in range(6)])
            ), name
    finally:
        torch.set_num_threads(threads)


DIRECTIONS = {  # an image that must score higher, from a grey ramp
    "sharpness": lambda ramp: (
        ramp + 0.2 * torch.rand(ramp.shape, generator=torch.Generator().manual_seed(0))
    ),
    "contrast": lambda ramp: ramp * 2,
    "saturation": lambda ramp: ramp * torch.tensor([1.0, 0.5, 0.5]).reshape(3, 1, 1),
    "high_frequency": lambda ramp: (
        ramp + 0.2 * torch.rand(ramp.shape, generator=torch.Generator().manual_seed(0))
    ),
    "edge_density": lambda ramp: ramp.flip(-1).where(torch.arange(16) % 2 == 0, ramp),
    "entropy": lambda ramp: ramp.transpose(-1, -2) * 0.5 + ramp * 0.5,
    "rotation_symmetry": lambda ramp: (ramp + ramp.flip(-1, -2)) / 2,
    "symmetry": lambda ramp: (ramp + ramp.flip(-1)) / 2,
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_direction_on_a_planted_pair(name: str) -> None:
    ramp = torch.linspace(0.1, 0.4, 16).expand(3, 16, 16)
    pixels = torch.stack([ramp, DIRECTIONS[name](ramp)])
    plain, changed = make_reward(name)(ImageBatch(pixels, (Prompt(""),) * 2)).values.tolist()
    assert changed > plain
