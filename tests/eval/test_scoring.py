"""Scoring happens once per image and in fixed calls; its scores are read back as computed.

Images without a score, failures on one image and outages are distinguished.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analytic import Brightness, Redness

from ddpo.distributed import World
from ddpo.errors import ConfigError, ImageError, RewardFailure, RewardUnavailable
from ddpo.eval.generate.image_store import ImageKey, ImageStore, image_path
from ddpo.eval.generate.scoring import Score, ScoreJournal, ScoreProgress, score, unscored
from ddpo.images import from_uint8, pixels_sha256
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt, RewardOutput

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
ITEMS = [
    (pixels_sha256(pixels), Prompt(f"prompt {place % 3}")) for place, pixels in enumerate(PIXELS)
]


class Rank:
    """Accelerate's state, as far as sharing needs it."""

    def __init__(self, rank: int, count: int) -> None:
        self.process_index = rank
        self.num_processes = count

    def wait_for_everyone(self) -> None:
        pass


class Reward:
    """The mean level, with a part; it records its calls.

    A prompt can ask for NaN, an exception or an outage.
    """

    def __init__(self, inputs: tuple[Any, ...] = ("image",)) -> None:
        self.card = RewardCard(
            id="mean",
            version="1",
            summary="mean",
            load="tests:Mean",
            family="pixels",
            flaws="",
            inputs=inputs,
        )
        self.calls: list[list[str]] = []
        self.answers: float = math.inf  # calls until nobody is at home any more

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        self.calls.append([pixels_sha256(pixels) for pixels in batch.uint8])
        texts = [prompt.text for prompt in batch.prompts]
        if any("break" in text for text in texts):
            raise ValueError("out of tea")
        if len(self.calls) > self.answers or any("outage" in text for text in texts):
            raise RewardUnavailable("nobody at home")
        values = from_uint8(batch.uint8).double().mean((1, 2, 3)).float()
        values[torch.tensor(["secret" in text for text in texts])] = torch.nan
        return RewardOutput(
            values,
            {"half": values / 2},
            tuple("not allowed" if "secret" in text else None for text in texts),
        )


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path)
    store.add((ImageKey("s", "p", place), pixels, {}) for place, pixels in enumerate(PIXELS))
    return store


def run(
    reward: Reward,
    store: ImageStore,
    items: list[tuple[str, Prompt]],
    world: World | None = None,
) -> list[ScoreProgress]:
    with ScoreJournal(store.out, world.rank if world else 0) as journal:
        return list(
            score(
                Scorer(reward),
                "mean|1",
                store,
                journal,
                items,
                world=world or World(None, "cpu"),
            )
        )


def read(store: ImageStore, items: list[tuple[str, Prompt]], reward: Reward) -> list[Score | None]:
    with ScoreJournal(store.out) as journal:
        return [journal.get("mean|1", reward.card, item) for item in items]


def test_scores_are_read_back_to_the_bit_with_parts_and_reasons(store: ImageStore) -> None:
    reward = Reward(("image", "prompt"))
    items = [*ITEMS[:20], (ITEMS[20][0], Prompt("a secret"))]
    assert run(reward, store, items) == [
        ScoreProgress(0, 21, 0),
        ScoreProgress(16, 21, 0),
        ScoreProgress(21, 21, 0),
    ]
    found = read(store, items, reward)
    for pixels, one in zip(PIXELS[:20], found, strict=False):
        expected = np.float32(
            np.mean(pixels.astype(np.float64) / 255)
        )  # float64 inside, rounded once
        assert one is not None
        assert one.value == pytest.approx(float(expected), rel=1e-6)
        assert one.parts["half"] == np.float32(one.value) / 2
    assert found[20] is not None
    assert math.isnan(found[20].value)
    assert (dict(found[20].parts), found[20].error, found[20].failed) == ({}, "not allowed", False)


def test_every_float32_survives_the_journal(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    names = [f"{place:064x}" for place in range(len(values))]
    with ScoreJournal(tmp_path) as journal:
        journal.add(
            "x",
            Reward().card,
            [
                ((n, Prompt("p")), Score(float(v), {"part": math.nan}))
                for n, v in zip(names, values, strict=True)
            ],
        )
    with ScoreJournal(tmp_path) as journal:
        found = [journal.get("x", Reward().card, (name, Prompt("p"))) for name in names]
    assert np.array_equal(
        np.array([one.value for one in found if one], np.float32).view(np.uint32),
        values.view(np.uint32),
    )
    assert all(one is not None and math.isnan(one.parts["part"]) for one in found)


def test_an_image_is_scored_once_and_once_per_prompt_only_if_the_reward_reads_prompts(
    store: ImageStore,
) -> None:
    twice = [*ITEMS[:4], *ITEMS[:4], (ITEMS[0][0], Prompt("another"))]
    blind = Reward()
    with_prompt = Reward(("image", "prompt"))
    with_metadata = Reward(("image", "prompt", "metadata"))
    run(blind, store, twice)
    assert [len(call) for call in blind.calls] == [4]
    assert blind.card.inputs == ("image",)
    (store.out / "scores-0.jsonl").unlink()
    run(with_prompt, store, twice)
    assert [len(call) for call in with_prompt.calls] == [5]
    (store.out / "scores-0.jsonl").unlink()
    run(with_metadata, store, [*twice, (ITEMS[0][0], Prompt("another", {"count": 3}))])
    assert [len(call) for call in with_metadata.calls] == [6]


def test_calls_are_blocks_of_the_plan_wherever_it_stopped_and_however_many_share_it(
    store: ImageStore,
) -> None:
    """The last digits of a score may depend on the rest of its batch, so batches must be equal."""
    straight = Reward()
    run(straight, store, ITEMS)
    assert [len(call) for call in straight.calls] == [16, 16, 8]
    assert [sha for call in straight.calls for sha in call] == [sha for sha, _ in ITEMS]
    journal = store.out / "scores-0.jsonl"
    whole = journal.read_bytes()
    found = read(store, ITEMS, straight)
    lines = whole.splitlines(keepends=True)
    for kept in (0, 40, len(lines[0]), len(lines[0] + lines[1]) - 1):
        journal.write_bytes(whole[:kept])
        again = Reward()
        done = sum(len(b"".join(lines[: n + 1])) <= kept for n in range(3))
        run(again, store, ITEMS)
        assert again.calls == straight.calls[done:]
        assert journal.read_bytes() == whole
    journal.unlink()
    first = Reward()
    second = Reward()
    run(first, store, ITEMS, World(Rank(0, 2), "cpu"))
    run(second, store, ITEMS, World(Rank(1, 2), "cpu"))
    assert (first.calls, second.calls) == (straight.calls[::2], straight.calls[1::2])
    assert read(store, ITEMS, straight) == found


def test_another_reward_or_version_has_scores_of_its_own(store: ImageStore) -> None:
    run(Reward(), store, ITEMS[:3])
    with ScoreJournal(store.out) as journal:
        assert unscored("mean|1", Reward().card, journal, ITEMS[:4]) == ITEMS[3:4]
        assert unscored("mean|2", Reward().card, journal, ITEMS[:4]) == ITEMS[:4]


def test_images_of_several_sizes_are_scored_each_with_its_like(store: ImageStore) -> None:
    wide = np.random.default_rng(2).integers(0, 256, (2, 4, 9, 3), dtype=np.uint8)
    store.add((ImageKey("s", "wide", place), pixels, {}) for place, pixels in enumerate(wide))
    mixed = [
        ITEMS[0],
        (pixels_sha256(wide[0]), Prompt("w")),
        ITEMS[1],
        (pixels_sha256(wide[1]), Prompt("w")),
    ]
    reward = Reward()
    run(reward, store, mixed)
    assert reward.calls == [
        [ITEMS[0][0], ITEMS[1][0]],
        [pixels_sha256(wide[0]), pixels_sha256(wide[1])],
    ]
    values = [one.value for one in read(store, mixed, reward) if one is not None]
    assert values == pytest.approx(
        [float((p / 255).mean()) for p in (PIXELS[0], wide[0], PIXELS[1], wide[1])], rel=1e-6
    )


def test_an_image_on_which_a_reward_breaks_is_unscorable_and_tried_again_next_time(
    store: ImageStore,
) -> None:
    reward = Reward(("image", "prompt"))
    items = [*ITEMS[:5], (ITEMS[5][0], Prompt("break here"))]
    run(reward, store, items)
    found = read(store, items, reward)
    assert found[5] is not None
    assert found[5].failed
    assert "out of tea" in str(found[5].error)
    assert all(one is not None and one.error is None for one in found[:5])
    again = Reward(("image", "prompt"))
    assert run(again, store, items)[0] == ScoreProgress(5, 6, 5)
    assert again.calls == [[ITEMS[5][0]]]
    with ScoreJournal(store.out, rank=1) as journal:  # another process did score it
        journal.add("mean|1", reward.card, [(items[5], Score(1.0, {}))])
        journal.add(
            "mean|1", reward.card, [(items[5], Score(math.nan, {}, "out of tea", failed=True))]
        )
        assert journal.get("mean|1", reward.card, items[5]) == Score(1.0, {})
        journal.reload()
        assert journal.get("mean|1", reward.card, items[5]) == Score(1.0, {})


def test_a_reward_that_is_broken_or_away_stops_the_evaluation_and_the_scores_are_kept(
    store: ImageStore,
) -> None:
    broken = [(sha256, Prompt(f"break {place}")) for place, (sha256, _) in enumerate(ITEMS[:3])]
    with pytest.raises(
        RewardFailure, match=r"'mean' could score none of 3 images; the first: .*out of tea"
    ):
        run(Reward(("image", "prompt")), store, broken)
    away = Reward(("image", "prompt"))
    away.answers = 1
    with pytest.raises(RewardUnavailable, match=r"nobody at home \(4 of 4 images\)"):
        run(away, store, ITEMS[:20])
    assert [one is not None for one in read(store, ITEMS[:20], away)] == [True] * 16 + [False] * 4


def test_an_image_that_fails_a_back_end_delays_no_evaluation_and_is_tried_again_later(
    store: ImageStore,
) -> None:
    reward = Reward(("image", "prompt"))
    items = [*ITEMS[:18], (ITEMS[18][0], Prompt("outage")), ITEMS[19]]
    assert run(reward, store, items)[-1] == ScoreProgress(20, 20, 0)
    found = read(store, items, reward)
    assert [one is not None and not one.failed for one in found] == [True] * 18 + [False, True]
    assert found[18] is not None
    assert "nobody at home" in str(found[18].error)
    again = Reward(("image", "prompt"))
    assert run(again, store, items)[0] == ScoreProgress(19, 20, 19)


def test_a_damaged_image_and_a_reward_of_groups_are_refused(store: ImageStore) -> None:
    path = store.out / image_path(ITEMS[1][0])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ImageError, match=ITEMS[1][0]):
        run(Reward(), store, ITEMS[:3])
    with pytest.raises(ConfigError, match="judges images as a group"):
        run(Reward(("image", "group")), store, ITEMS[:3])


def test_rewards_of_the_tests_agree_with_their_formulas(store: ImageStore) -> None:
    """Through the store and back: mean level, and red minus mean, by numpy."""
    with ScoreJournal(store.out) as journal:
        for reward in (Brightness(), Redness()):
            list(score(Scorer(reward), reward.card.id, store, journal, ITEMS[:5]))
        bright = [journal.get("brightness", Brightness.card, item) for item in ITEMS[:5]]
        red = [journal.get("redness", Redness.card, item) for item in ITEMS[:5]]
    for pixels, one, other in zip(PIXELS[:5], bright, red, strict=True):
        assert one is not None
        assert other is not None
        assert one.value == pytest.approx(pixels.mean(), rel=1e-6)
        assert other.value == pytest.approx((pixels[..., 0].mean() - pixels.mean()) / 255, abs=1e-6)
