"""Edits and noise floors by hand and in closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ddpo.inputs.input_image import InputImage
from ddpo.reward_quality.comparison import compare_rewards, score_for_comparison
from ddpo.reward_quality.edits import EDITS, SAME_IMAGE, same_image_edits
from ddpo.reward_quality.sensitivity import edited_batch, sensitivity
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.types import Prompt


def made_image(height: int = 20, width: int = 16) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    )


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (20, 16)])
def test_every_edit_keeps_the_size_and_leaves_its_input_alone(
    name: str, size: tuple[int, int]
) -> None:
    image = made_image(*size)
    before = image.tobytes()
    edited = EDITS[name](image)
    assert (edited.size, edited.mode) == (image.size, "RGB")
    assert image.tobytes() == before
    assert edited.tobytes() == EDITS[name](image).tobytes()
    if size == (20, 16):
        assert edited.tobytes() != before


def test_edits_by_hand() -> None:
    image = pixels(made_image())
    assert (pixels(EDITS["flip"](made_image())) == image[:, ::-1]).all()
    moved = pixels(EDITS["crop 1 px"](made_image()))
    assert (moved[:-1, :-1] == image[1:, 1:]).all()
    assert (moved[-1] == moved[-2]).all()
    assert (moved[:, -1] == moved[:, -2]).all()
    framed = pixels(EDITS["border 4 px"](made_image()))
    assert (framed[4:-4, 4:-4] == image[4:-4, 4:-4]).all()
    assert framed.sum() == image[4:-4, 4:-4].sum()
    for name, factor in (("brightness +5 %", 1.05), ("brightness −5 %", 0.95)):
        assert (
            np.abs(pixels(EDITS[name](made_image())) - (image * factor).clip(0, 255)).max()
            <= 0.5 + 1e-3
        )
    for name, factor in (("saturation +10 %", 1.1), ("saturation −10 %", 0.9)):
        luma = image @ np.array([0.299, 0.587, 0.114])
        exact = luma[..., None] + factor * (image - luma[..., None])
        assert np.abs(pixels(EDITS[name](made_image())) - exact.clip(0, 255)).max() <= 0.5 + 1e-3


def test_a_grey_image_has_no_saturation_to_change_and_no_detail_to_blur() -> None:
    grey = Image.new("RGB", (16, 16), (77, 77, 77))
    for name in (
        "saturation +10 %",
        "saturation −10 %",
        "blur r=1",
        "sharpen",
        "resize 90 %",
        "flip",
        "crop 1 px",
        "JPEG q80",
    ):
        assert EDITS[name](grey).tobytes() == grey.tobytes(), name


def test_darkness_and_symmetry_change_as_by_hand(tmp_path: Path) -> None:
    """Grey of level 100: × 1.05 is 105, × 0.95 is 95; darkness is −level/255.

    An image is as symmetric as its mirror image.
    """
    Image.new("RGB", (16, 16), (100, 100, 100)).save(tmp_path / "grey.png")
    made_image().save(tmp_path / "noise.png")
    scorers = {name: Scorer(make_reward(name)) for name in ("darkness", "symmetry")}
    files = [InputImage(str(tmp_path / name)) for name in ("grey.png", "noise.png")]
    darkness, symmetry = score_for_comparison(scorers, files)
    assert darkness.scores[0] == pytest.approx(-100 / 255, rel=1e-6)
    assert darkness.edited["brightness +5 %"][0] == pytest.approx(-105 / 255, rel=1e-6)
    assert darkness.edited["brightness −5 %"][0] == pytest.approx(-95 / 255, rel=1e-6)
    assert darkness.edited["border 4 px"][0] == pytest.approx(
        -100 / 255 * 64 / 256, rel=1e-6
    )  # 8×8 of 16×16 stay
    assert (symmetry.edited["flip"] == symmetry.scores).all()
    found = compare_rewards([darkness, symmetry], files).sensitivities["symmetry"]
    assert found.effects[0].edit == "flip"
    assert (found.effects[0].mean, found.effects[0].mean_abs, found.effects[0].sd) == (0, 0, 0)
    assert found.noise_edit != "flip"


def test_figures_and_noise_floor_by_hand() -> None:
    edited = {
        "flip": [1, 2, 3, 4, 9],  # changes 0 0 0 0
        "crop 1 px": [1.1, 1.8, 3.3, 14, 9],  # +0.1 −0.2 +0.3 +10: median of 0.1 0.2 0.3 10 is 0.25
        "JPEG q95": [1.1, 2.1, math.nan, 4.1, 9],  # +0.1 +0.1 +0.1
        "border 4 px": [6, 7, 8, 9, 9],  # +5: not an edit of the same image
    }
    found = sensitivity([1, 2, 3, 4, math.nan], edited)
    spread = math.sqrt(5 / 3)
    assert found.spread == pytest.approx(spread)
    assert (found.noise_floor, found.noise_edit) == (pytest.approx(0.25), "crop 1 px")
    assert found.noise_share == pytest.approx(0.25 / spread)
    crop, jpeg, border = found.effects[1:]
    assert (crop.mean, crop.mean_abs) == (pytest.approx(2.55), pytest.approx(2.65))
    assert crop.share == pytest.approx(2.65 / spread)
    assert crop.sd == pytest.approx(np.std([0.1, -0.2, 0.3, 10], ddof=1))
    assert (jpeg.n, jpeg.excluded) == (3, 2)
    assert (border.mean, border.sd) == (5, 0)
    assert set(SAME_IMAGE) <= set(EDITS)


def test_where_nothing_is_known_nothing_is_claimed() -> None:
    nothing = sensitivity([math.nan], {"flip": [math.nan]})
    assert math.isnan(nothing.noise_floor)
    assert (nothing.noise_edit, nothing.effects[0].n, nothing.effects[0].excluded) == ("", 0, 1)
    one = sensitivity([2.0], {"flip": [2.5]})
    assert (one.noise_floor, one.effects[0].mean) == (0.5, 0.5)
    assert math.isnan(one.noise_share)


def test_a_mirror_image_may_break_what_a_prompt_states() -> None:
    """The floor of a reward that reads the prompt, such as `ocr`, is not set by mirrored text."""
    assert same_image_edits(("image",)) == SAME_IMAGE
    assert same_image_edits(("image", "prompt")) == ("crop 1 px", "JPEG q95")


def test_a_batch_is_one_image_and_its_edits() -> None:
    batch = edited_batch(made_image(), Prompt("a cat"))
    assert len(batch) == 1 + len(EDITS)
    assert (batch.uint8[0] == np.asarray(made_image())).all()
    assert {prompt.text for prompt in batch.prompts} == {"a cat"}
