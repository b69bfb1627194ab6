"""Images that a program holds score as the same images in files do, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddpo
from ddpo.errors import ImageError

random = np.random.default_rng(0)
BYTES = random.integers(0, 256, (24, 36, 4), dtype=np.uint8)
IMAGES: dict[str, Callable[[], Image.Image]] = {
    "RGB": lambda: Image.fromarray(BYTES[..., :3]),
    "RGBA": lambda: Image.fromarray(BYTES),
    "L": lambda: Image.fromarray(BYTES[..., 0]),
    "LA": lambda: Image.fromarray(BYTES[..., :2]),
    "P": lambda: Image.fromarray(BYTES[..., :3]).quantize(16),
    "1": lambda: Image.fromarray(BYTES[..., 0]).convert("1"),
    "I;16": lambda: Image.fromarray(BYTES[..., :2].copy().view(np.uint16)[..., 0]),
}
REWARDS = ["darkness", "compressibility", "sharpness", "colorfulness"]


@pytest.mark.parametrize("mode", IMAGES)
def test_an_image_in_memory_scores_as_its_file_does(mode: str, tmp_path: Path) -> None:
    image = IMAGES[mode]()
    assert image.mode == mode
    path = tmp_path / "image.png"
    image.save(path)
    before = np.array(image)
    of_file = ddpo.score(REWARDS, [path])
    in_memory = ddpo.score(REWARDS, [image])
    assert in_memory[REWARDS].to_numpy().tolist() == of_file[REWARDS].to_numpy().tolist()
    assert [ddpo.load_reward(name)(image) for name in REWARDS] == of_file[REWARDS].iloc[0].tolist()
    assert np.array_equal(np.array(image), before)


def test_groups_of_images_in_memory_score_as_their_files_do(tmp_path: Path) -> None:
    images = [Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in "four"]
    paths = [tmp_path / f"{place}.png" for place in range(4)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    prompts = ["a cat", "a cat", "a dog", "a dog"]
    rewards = ["vendi:features=pixels", "darkness"]
    of_files = ddpo.score(rewards, paths, prompts)
    in_memory = ddpo.score(rewards, images, prompts)
    names = ["vendi", "darkness"]
    assert in_memory[names].to_numpy().tolist() == of_files[names].to_numpy().tolist()
    assert not in_memory[names].isna().to_numpy().any()


def test_a_damaged_file_that_pillow_opened_is_named_by_its_place(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(BYTES[..., :3]).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-700])
    images = [Image.open(whole), Image.open(tmp_path / "cut.png")]
    for call in (ddpo.load_reward("darkness"), lambda given: ddpo.score("darkness", given)):
        with pytest.raises(ImageError, match=r"^image 1: ") as caught:
            call(images)
        assert "\n" not in str(caught.value)
