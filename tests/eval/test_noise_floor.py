"""Noise floors by hand, by the edits themselves, and where there is none."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpo.eval.analysis.noise_floor import FILE, FLOOR_IMAGES, NoiseFloors, noise_floor
from ddpo.eval.generate.image_store import ImageKey, ImageStore
from ddpo.images import pixels_sha256
from ddpo.rewards.card import Calls
from ddpo.rewards.cards import CARDS
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt, RewardOutput

CAT = Prompt("a cat")


def noise(count: int, height: int = 16, width: int = 12, seed: int = 0) -> list[NDArray[np.uint8]]:
    return list(
        np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    )


class LeftColumn:
    """The mean level of the left column: flipping and cropping move it by known amounts."""

    def __init__(self, **changes: object) -> None:
        self.card = replace(
            CARDS["darkness"],
            id="left_column",
            pixels="uint8",
            **changes,  # type: ignore[arg-type]
        )
        self.seen: list[str] = []
        self.images = 0

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        self.images += len(batch)
        self.seen += [prompt.text for prompt in batch.prompts]
        return RewardOutput(torch.from_numpy(batch.uint8[:, :, 0].mean((1, 2)).astype(np.float32)))


def test_it_is_the_largest_median_change_by_hand() -> None:
    """Rows of one level each: a flip and a crop change a column of a ramp, a JPEG hardly does."""
    floors = []
    for steps in ([10, 20, 60], [10, 10, 10]):
        images = []
        for step in steps:  # level 50 + step · column, 4 columns
            ramp = np.broadcast_to((50 + step * np.arange(4))[None, :, None], (16, 4, 3)).astype(
                np.uint8
            )
            images.append(ramp)
        floors.append(noise_floor(Scorer(LeftColumn()), images, [CAT] * 3))
    assert floors[0] == pytest.approx(
        60
    )  # flip: 3 columns · steps = 30, 60, 180, of which the median; crop: 10, 20, 60
    assert floors[1] == pytest.approx(30)


def test_it_is_what_the_edits_give_when_done_by_hand() -> None:
    images = noise(5) + noise(4, 8, 20, 1)  # two sizes
    score = make_reward("sharpness")

    def scored(arrays: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
        return np.array(
            [float(score(ImageBatch.of_uint8(one[None], [CAT])).values[0]) for one in arrays]
        )

    def jpeg(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(array).save(file, format="JPEG", quality=95)
        return np.asarray(Image.open(file).convert("RGB"))

    moved = [np.pad(one[1:, 1:], ((0, 1), (0, 1), (0, 0)), mode="edge") for one in images]
    edited = [[one[:, ::-1].copy() for one in images], moved, [jpeg(one) for one in images]]
    expected = max(float(np.median(np.abs(scored(one) - scored(images)))) for one in edited)
    assert noise_floor(Scorer(score), images, [CAT] * 9) == pytest.approx(expected, rel=1e-6)
    assert expected > 0


def test_it_takes_24_images_evenly_with_their_own_prompts() -> None:
    reward = LeftColumn()
    noise_floor(
        Scorer(reward, batch_size=7), noise(100), [Prompt(str(number)) for number in range(100)]
    )
    assert reward.images == 4 * FLOOR_IMAGES  # each with three edits
    numbers = sorted({int(text) for text in reward.seen})
    assert numbers == [place * 100 // 24 for place in range(24)]


def test_where_it_is_not_measured_it_is_nan_and_nothing_is_scored() -> None:
    remote = LeftColumn(calls=Calls(retries=3))
    group = LeftColumn(inputs=("image", "group"))
    for reward in (remote, group):
        assert math.isnan(noise_floor(Scorer(reward), noise(3), [CAT] * 3))
        assert reward.images == 0
    assert math.isnan(noise_floor(Scorer(LeftColumn()), [], []))


def test_an_image_without_a_score_is_left_out() -> None:
    class Choosy(LeftColumn):
        def __call__(self, batch: ImageBatch) -> RewardOutput:
            values = super().__call__(batch).values
            odd = [prompt.text == "odd" for prompt in batch.prompts]
            values[torch.tensor(odd)] = math.nan
            return RewardOutput(values, errors=tuple("odd" if one else None for one in odd))

    images = noise(6)
    prompts = [CAT, Prompt("odd")] * 3
    left = noise_floor(Scorer(LeftColumn()), images[::2], [CAT] * 3)
    assert noise_floor(Scorer(Choosy()), images, prompts) == pytest.approx(left)
    assert math.isnan(noise_floor(Scorer(Choosy()), images, [Prompt("odd")] * 6))


@pytest.mark.parametrize(("inputs", "used"), [(("image",), True), (("image", "prompt"), False)])
def test_a_kept_floor_counts_only_under_the_edits_of_today(
    inputs: tuple[str, ...], used: bool, tmp_path: Path
) -> None:
    """Earlier files name no edits: all were measured with the mirror image."""
    ramp = np.broadcast_to((50 + 20 * np.arange(4))[None, :, None], (16, 4, 3)).astype(np.uint8)
    images = [(pixels_sha256(ramp), CAT)]
    reward = LeftColumn(inputs=inputs)
    resolved = ResolvedReward(reward.card, {}, "ddpo", None)
    with ImageStore(tmp_path) as store:
        store.add([(ImageKey("model", CAT.id, 0), ramp, {})])
        floors = NoiseFloors(tmp_path, images)
        floors.measure(resolved, Scorer(reward), store)
        assert floors.value(resolved) == pytest.approx(60 if used else 20)  # flip 60, crop 20
        (key,) = json.loads((tmp_path / FILE).read_text())
        images_hash = key.split()[0]
        old = {f"{images_hash} {resolved.identity}": 60.5}
        (tmp_path / FILE).write_text(json.dumps(old))
        floors = NoiseFloors(tmp_path, images)
        assert floors.known(resolved) is used
        reward.images = 0
        floors.measure(resolved, Scorer(reward), store)
        assert reward.images == (0 if used else 3)  # the image and two edits
        assert floors.value(resolved) == pytest.approx(60.5 if used else 20)
        assert NoiseFloors(tmp_path, images).known(resolved)
        assert json.loads((tmp_path / FILE).read_text()).items() >= old.items()
