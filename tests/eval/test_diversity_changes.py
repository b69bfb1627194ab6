"""Diversity by hand, against the zoo, and by simulation of intervals, collapse and style."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ddpo.eval.analysis.diversity import (
    DiversityChange,
    ImageFeatures,
    diversity_changes,
    small_pixels,
    vendi,
)
from ddpo.eval.analysis.group_diversity import (
    group_reward_change,
    group_rewards_here,
    score_groups,
)
from ddpo.rewards.cards.diversity import ALEXNET, LPIPS_LINEAR
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.stats.ratio import ratio_interval
from ddpo.types import ImageBatch, Prompt
from ddpo.weights import url_target

Groups = dict[str, np.ndarray]


def found(base: ImageFeatures, tuned: ImageFeatures) -> dict[tuple[str, str], DiversityChange]:
    return {
        (change.measure, change.scope): change
        for change in diversity_changes("run", "animals", base, tuned)
    }


def gaussian(
    prompts: int, seeds: int, between: float, within: float, seed: int, width: int = 8
) -> Groups:
    """Rows N(prompt mean, within²), prompt means N(0, between²)."""
    random = np.random.default_rng(seed)
    centres = between * random.standard_normal((prompts, 1, width))
    return {
        str(i): rows
        for i, rows in enumerate(centres + within * random.standard_normal((prompts, seeds, width)))
    }


def test_distances_by_hand() -> None:
    """Two prompts of two images of two pixels; features about the base model's mean (1, 1)."""
    base = ImageFeatures(
        {"a": np.uint8([[0, 0], [255, 255]]), "b": np.uint8([[0, 0], [255, 0]])},
        {
            "a": np.array([[3.0, 1.0], [1.0, 3.0]]),
            "b": np.array([[-1.0, 1.0], [1.0, -1.0]]),
        },  # about the mean: right, up, left, down
    )
    tuned = ImageFeatures(
        {"a": np.uint8([[0, 0], [51, 51]]), "b": np.uint8([[0, 0], [0, 0]])},
        {
            "a": np.array([[3.0, 1.0], [2.0, 2.0]]),
            "b": np.array([[-1.0, 1.0], [-9.0, 1.0]]),
        },  # 45 degrees apart; the same direction
    )
    of = found(base, tuned)
    pixels = of["pixels", "within"]
    assert pixels.base == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert pixels.tuned == pytest.approx(0.2 / 2)
    assert pixels.ratio == pytest.approx(0.2 / (1 + math.sqrt(0.5)))
    assert (pixels.low, pixels.high) == pytest.approx(
        (0.0, 0.2)
    )  # a resample of two prompts may be b, b or a, a
    features = of["features", "within"]
    assert (features.base, features.tuned) == pytest.approx((1.0, (1 - math.sqrt(0.5)) / 2))
    across = of[
        "pixels", "across"
    ]  # mean images (127.5, 127.5) and (127.5, 0); (25.5, 25.5) and (0, 0)
    assert (across.base, across.tuned) == pytest.approx((0.5 * math.sqrt(0.5), 0.1))
    spread = of["seed spread", "within"]
    assert (spread.base, spread.tuned, spread.ratio) == pytest.approx((4.0, (1 + 32) / 2, 33 / 8))
    assert of["vendi features", "within"].base == pytest.approx(2.0)
    assert {change.prompts for change in of.values()} == {2}


@pytest.mark.parametrize(
    ("rows", "score"),
    [
        ([[1.0, 2.0]] * 5, 1.0),
        (np.eye(4).tolist(), 4.0),
        ([[0.0, 1.0], [math.sqrt(0.75), 0.5]], 4 / 3**0.75),  # cosine 1/2: λ = 3/4 and 1/4
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], 3 / 2 ** (2 / 3)),  # λ = 2/3 and 1/3
    ],
)
def test_vendi_of_worked_examples(rows: list[list[float]], score: float) -> None:
    assert vendi(np.array(rows)) == pytest.approx(score, rel=1e-9)


def test_an_interval_across_prompts_is_that_of_resampled_pairs_of_different_prompts() -> None:
    base = gaussian(12, 2, 60.0, 5.0, 1)
    tuned = gaussian(12, 2, 40.0, 5.0, 2)
    change = found(ImageFeatures(base), ImageFeatures(tuned))["pixels", "across"]
    means = [np.stack([rows.mean(0) for rows in groups.values()]) for groups in (base, tuned)]
    apart = [np.sqrt(np.square(rows[:, None] - rows[None]).mean(2)) / 255 for rows in means]
    once = [of[np.triu_indices(12, 1)].mean() for of in apart]
    assert (change.base, change.tuned, change.ratio) == pytest.approx(
        (once[0], once[1], once[1] / once[0])
    )
    random = np.random.default_rng(7)
    ratios = []
    for _ in range(4000):
        drawn = random.integers(12, size=12)
        different = drawn[:, None] != drawn[None]
        ratios.append(
            apart[1][np.ix_(drawn, drawn)][different].mean()
            / apart[0][np.ix_(drawn, drawn)][different].mean()
        )
    assert (change.low, change.high) == pytest.approx(
        tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.02
    )


def test_the_interval_of_a_ratio_covers_it() -> None:
    """The true ratio of means is 0.8, of skewed values with a level per prompt, on 40 prompts."""
    random = np.random.default_rng(3)
    inside = 0
    for _ in range(300):
        level = random.lognormal(0.0, 0.6, 40)
        base = level * random.lognormal(0.0, 0.3, 40)
        tuned = 0.8 * level * random.lognormal(0.0, 0.3, 40)
        _, low, high = ratio_interval(base, tuned)
        inside += low <= 0.8 <= high
    assert 0.91 <= inside / 300 <= 0.98


def test_a_collapse_shows_and_a_healthy_run_does_not() -> None:
    """Seeds that vary half as much have a quarter of the variance.

    Of 30 pairs of models of each kind, no interval reaches the others'.
    """

    def spreads(within: float) -> list[DiversityChange]:
        pairs = [
            (gaussian(40, 4, 1.0, 1.0, seed), gaussian(40, 4, 1.0, within, 100 + seed))
            for seed in range(30)
        ]
        return [
            found(ImageFeatures(base, base), ImageFeatures(tuned, tuned))["seed spread", "within"]
            for base, tuned in pairs
        ]

    for changes, ratio in ((spreads(0.5), 0.25), (spreads(1.0), 1.0)):
        assert sum(change.low <= ratio <= change.high for change in changes) >= 26  # of 95 %: 28.5
        assert all(0.6 * ratio < change.low < change.high < 1.6 * ratio for change in changes)


def test_a_change_of_style_moves_cosines_but_not_the_spread_of_seeds() -> None:
    base = gaussian(30, 4, 1.0, 1.0, 0)
    moved = {prompt: rows + 5 for prompt, rows in base.items()}
    of = found(ImageFeatures(base, base), ImageFeatures(moved, moved))
    assert of["features", "within"].ratio < 0.2
    for measure in ("pixels", "seed spread"):
        assert (
            of[measure, "within"].ratio,
            of[measure, "within"].low,
            of[measure, "within"].high,
        ) == pytest.approx((1.0, 1.0, 1.0))


def test_only_equal_numbers_of_images_are_compared() -> None:
    """The tuned model has two of four images per prompt, one of another, and an own prompt."""
    base = gaussian(6, 4, 1.0, 1.0, 0)
    fewer = {prompt: rows[:2] for prompt, rows in base.items()} | {
        "5": base["5"][:1],
        "new": base["0"],
    }
    of = found(ImageFeatures(base, base), ImageFeatures(fewer, fewer))
    assert {(change.prompts, change.ratio) for change in of.values()} == {(5, 1.0)}
    nothing = found(ImageFeatures({}), ImageFeatures({}))
    assert nothing == {}
    one = found(ImageFeatures({"0": base["0"]}), ImageFeatures({"0": base["0"]}))
    assert one["pixels", "within"].ratio == 1.0
    assert math.isnan(one["pixels", "within"].low)
    assert math.isnan(one["pixels", "across"].base)


def test_images_are_made_small_by_areas() -> None:
    image = np.zeros((1, 128, 96, 3), dtype=np.uint8)
    image[0, 1::2, :, 0] = 200  # every second row
    small = small_pixels(image).reshape(64, 64, 3)
    assert (small[..., 0] == 100).all()
    assert (small[..., 1:] == 0).all()
    tiny = np.random.default_rng(0).integers(256, size=(2, 8, 16, 3), dtype=np.uint8)
    assert np.array_equal(small_pixels(tiny), tiny.reshape(2, -1))


def test_group_rewards_of_the_zoo_prompt_by_prompt() -> None:
    """The Vendi score of pixels: two unlike images, two alike, and one alone without a score."""
    random = np.random.default_rng(0)
    red, blue = (
        np.full((32, 32, 3), color, dtype=np.uint8) for color in ((255, 0, 0), (0, 0, 255))
    )
    some = {"a": [red, blue], "b": [red, red], "c": [red]}
    batches = {
        id: ImageBatch.of_uint8(np.stack(images), [Prompt(id)] * len(images))
        for id, images in some.items()
    }
    scores = score_groups(make_scorer(resolve("vendi:features=pixels")), batches)
    assert (scores["a"], scores["b"]) == pytest.approx((2.0, 1.0), abs=1e-5)
    assert math.isnan(scores["c"])
    change = group_reward_change(
        "run", "animals", "vendi pixels", scores, {"a": 1.0, "b": 1.0, "c": random.random()}
    )
    assert (change.prompts, change.base, change.tuned, change.ratio) == (
        2,
        pytest.approx(1.5),
        1.0,
        pytest.approx(2 / 3),
    )
    assert group_reward_change("run", "animals", "dino", {"c": math.nan}, {"c": 1.0}).prompts == 0


def test_group_rewards_are_offered_where_their_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert group_rewards_here() == ()
    for weight in (ALEXNET, LPIPS_LINEAR):
        target = url_target(weight.source, weight.sha256 or "")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"weights")
    assert group_rewards_here() == ("diversity_lpips",)
