"""The promises of docs/performance.md about scoring, with room for a busy machine."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.devices import processors
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.card import RewardCard
from ddpo.rewards.image_files import score_files
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.types import ImageBatch, Prompt, RewardOutput


class Busy:
    """Takes a millisecond per image."""

    card = RewardCard(id="busy", version="1", summary="", load="here:Busy", family="test", flaws="")

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        end = time.perf_counter() + 1e-3 * len(batch)
        while time.perf_counter() < end:
            pass
        return RewardOutput(batch.pixels[:, 0, 0, 0])


def seconds(function: object, *arguments: object) -> float:
    started = time.perf_counter()
    function(*arguments)  # type: ignore[operator]
    return time.perf_counter() - started


def write_images(folder: Path, count: int) -> list[Path]:
    """Writes images of 512×512 with coarse structure under fine noise."""
    generator = np.random.default_rng(0)
    coarse = np.kron(generator.integers(0, 200, (count, 16, 16, 3)), np.ones((1, 32, 32, 1)))
    images = coarse + generator.integers(0, 56, (count, 512, 512, 3))
    paths = [folder / f"{index:03}.png" for index in range(count)]
    for path, image in zip(paths, images.astype(np.uint8), strict=True):
        Image.fromarray(image).save(path, compress_level=1)
    return paths


def plain_loop(paths: list[Path]) -> list[int]:
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            file = io.BytesIO()
            image.convert("RGB").save(file, format="JPEG", quality=95)
            sizes.append(file.tell())
    return sizes


def test_jpeg_sizes_of_a_folder_are_those_of_pillow_and_come_sooner(tmp_path: Path) -> None:
    """The promise is 1.8 times as many images per second on two idle processors.

    A busy machine has to give 1.2 in its best round. Beside other processes of the test suite,
    which take the other processor, it must not be slower by much.
    """
    paths = write_images(tmp_path, 48)
    scorer = make_scorer(resolve("incompressibility"))

    def ours() -> list[int]:
        scored = score_files([scorer], (InputImage(str(path)) for path in paths))
        return [round((row.score or 0) * 1000) for (row,) in scored]

    assert ours() == plain_loop(paths)
    if processors() > 1:
        least = 0.8 if "PYTEST_XDIST_WORKER" in os.environ else 1.2
        assert max(seconds(plain_loop, paths) / seconds(ours) for _ in range(5)) > least


def test_the_scorer_costs_next_to_nothing() -> None:
    """The promise is under 3 % of a reward that takes a millisecond per image.

    The fastest of interleaved rounds get twice that: other processes only make a round slower.
    """
    reward = Busy()
    batch = ImageBatch(torch.zeros(64, 3, 64, 64), (Prompt(""),) * 64)
    scorer = Scorer(reward)

    def direct() -> None:
        for start in range(0, 64, 16):
            reward(batch[start : start + 16])

    rounds = [(seconds(scorer.score, batch), seconds(direct)) for _ in range(9)]
    scored, called = (min(column) for column in zip(*rounds, strict=True))
    assert scored / called < 1.06


def test_a_second_time_is_served_from_the_cache_alone(tmp_path: Path) -> None:
    """The promise is 1,000 images of 512×512 per second; a busy machine has to give a quarter."""
    array = np.random.default_rng(0).integers(0, 256, (64, 512, 512, 3)).astype(np.uint8)
    batch = ImageBatch.of_uint8(array, (Prompt(""),) * 64)
    reward = Busy()
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        first = Scorer(reward, cache=cache).score(batch)
        scorer = Scorer(reward, cache=cache)
        taken = min(seconds(scorer.score, batch) for _ in range(3))
        assert torch.equal(scorer.score(batch).values, first.values)
    assert scorer.seconds == 0  # no call
    assert 64 / taken > 250


@pytest.mark.skipif(processors() < 2, reason="one processor")
def test_several_processors_are_used() -> None:
    array = np.random.default_rng(0).integers(0, 256, (32, 256, 256, 3)).astype(np.uint8)
    scorer = make_scorer(resolve("compressibility"))
    scorer.score(ImageBatch.of_uint8(array, (Prompt(""),) * 32))
    assert scorer._pool is not None
    assert len(scorer._pool._threads) == processors()
