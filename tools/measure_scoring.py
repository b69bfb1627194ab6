"""Measures the figures on scoring in docs/performance.md: `python tools/measure_scoring.py FOLDER`.

FOLDER holds images. The sides of every comparison take turns in one process, so that a slower
moment of the machine hits both.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ddpo.inputs.image_files import find_images
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.card import RewardCard
from ddpo.rewards.image_files import score_files
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.types import ImageBatch, Prompt, RewardOutput

ROUNDS = 3


def plain_loop(paths: list[Path]) -> list[int]:
    """JPEG sizes by a loop written by hand: open, encode, take the length."""
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            file = io.BytesIO()
            image.convert("RGB").save(file, format="JPEG", quality=95)
            sizes.append(file.tell())
    return sizes


def ours(paths: list[Path]) -> list[int]:
    """JPEG sizes through the scorer."""
    rows = score_files(
        [make_scorer(resolve("incompressibility"))], (InputImage(str(path)) for path in paths)
    )
    return [round((row.score or 0) * 1000) for (row,) in rows]


def in_memory(images: np.ndarray) -> tuple[Callable[[], list[int]], Callable[[], list[int]]]:
    """The plain loop and the scorer as functions on decoded images."""
    scorer = make_scorer(resolve("incompressibility"))
    batch = ImageBatch.of_uint8(images, (Prompt(""),) * len(images))

    def plain() -> list[int]:
        sizes = []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image).save(file, format="JPEG", quality=95)
            sizes.append(file.tell())
        return sizes

    return plain, lambda: [round(value * 1000) for value in scorer.score(batch).values.tolist()]


class Waits:
    """A reward that keeps one thread busy for `milliseconds` per image."""

    card = RewardCard(
        id="waits", version="1", summary="", load="here:Waits", family="test", flaws=""
    )

    def __init__(self, milliseconds: float) -> None:
        self.seconds = milliseconds / 1000

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        end = time.perf_counter() + self.seconds * len(batch)
        while time.perf_counter() < end:
            pass
        return RewardOutput(torch.zeros(len(batch)))


def from_cache(images: np.ndarray, cache: ScoreCache) -> float:
    """Images per second from the cache, for decoded pixels and without a call of the reward."""
    reward = Waits(20.0)
    batches = [
        ImageBatch.of_uint8(images[i : i + 16], (Prompt(""),) * len(images[i : i + 16]))
        for i in range(0, len(images), 16)
    ]
    for batch in batches:
        Scorer(reward, cache=cache).score(batch)
    rates = []
    for _ in range(2 * ROUNDS):
        scorer = Scorer(reward, cache=cache)
        start = time.perf_counter()
        for batch in batches:
            scorer.score(batch)
        rates.append(len(images) / (time.perf_counter() - start))
        assert scorer.seconds == 0
    return statistics.median(rates)


def in_batches(reward: Waits, images: ImageBatch, size: int) -> list[RewardOutput]:
    """The outputs of direct calls of the reward on batches of `size` images."""
    return [reward(images[start : start + size]) for start in range(0, len(images), size)]


def interleaved(
    first: Callable[[], object], second: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float, bool]:
    """Median seconds of each function, and True if they always gave the same result."""
    times: tuple[list[float], list[float]] = ([], [])
    same = True
    for _ in range(rounds):
        results = []
        for function, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            results.append(function())
            taken.append(time.perf_counter() - start)
        same = same and results[0] == results[1]
    return statistics.median(times[0]), statistics.median(times[1]), same


def main() -> None:
    paths = find_images([Path(sys.argv[1])])
    plain, scored, same = interleaved(lambda: plain_loop(paths), lambda: ours(paths))
    count = len(paths)
    print(
        f"{count} files: plain loop {count / plain:.0f}/s, scorer {count / scored:.0f}/s, "
        f"ratio {plain / scored:.2f}, sizes equal: {same}"
    )
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths[:200]])
    plain, scored, same = interleaved(*in_memory(images))
    print(
        f"200 decoded: plain loop {200 / plain:.0f}/s, scorer {200 / scored:.0f}/s, "
        f"ratio {plain / scored:.2f}, sizes equal: {same}"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        ScoreCache(Path(folder) / "scores.sqlite") as cache,
    ):
        print(f"512×512 from the cache, decoded: {from_cache(images, cache):.0f} images/s")
    small = ImageBatch(torch.zeros(64, 3, 64, 64), (Prompt(""),) * 64)
    for milliseconds in (1.0, 2.0, 5.0):
        reward = Waits(milliseconds)
        scorer = Scorer(reward)
        direct = partial(in_batches, reward, small, 16)
        alone, through, _ = interleaved(direct, partial(scorer.score, small), 9)
        overhead = 100 * (through / alone - 1)
        print(f"reward of {milliseconds:g} ms per image: overhead of the scorer {overhead:.2f} %")


if __name__ == "__main__":
    main()
