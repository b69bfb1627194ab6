"""The readers of scenes as rewards: checks by hand, reading, refused prompts, held-out choice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpo.eval.inputs.held_out import choose_embedded, choose_held_out
from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.emoji_geneval import EmojiDetector, EmojiGeneval, described
from ddpo.rewards.models.scene_detector import THINGS, Detection, _detections, seen_among
from ddpo.rewards.scenes.checks import Seen, credits_of, seen_in
from ddpo.rewards.scenes.grammar import scene_of
from ddpo.types import ImageBatch, Prompt
from pretraining.render import FONT_PATHS

needs_font = pytest.mark.skipif(
    not any(Path(path).is_file() for path in FONT_PATHS), reason="Noto Color Emoji is missing"
)
READERS = ("emoji_geneval", "emoji_detector")


@pytest.mark.parametrize(
    ("prompt", "shown", "share"),
    [
        ("a cat", "a cat", 1),
        ("a cat", "a cat on a blue background", 1),
        ("a cat", "a cat riding a bike", 1),
        ("a cat", "a dog", 0),  # no cat, and something else
        ("a cat", "a cat and a dog", 1 / 2),
        ("a cat", "two cats", 1 / 2),  # one too many, and nothing else
        ("three cats", "two cats", (2 / 3 + 1) / 2),
        ("three cats", "a cat", (1 / 3 + 1) / 2),
        ("two cats", "four cats", 1 / 2),
        ("a cat and a dog", "a dog and a cat", 1),  # "and" states no order
        ("a cat and a dog", "a cat", 2 / 3),
        ("a red ball", "a blue ball", 2 / 3),
        ("a cat left of a ball", "a red ball left of a cat", 3 / 4),
        ("a cat on a box", "a cat under a red box", 3 / 4),
        (
            "a cat on a red box on a blue background",
            "a cat on a blue box on a red background",
            4 / 6,
        ),
        ("a cat washing the dishes", "a cat playing chess", 2 / 3),
    ],
)
def test_the_share_of_statements_by_hand(prompt: str, shown: str, share: float) -> None:
    found = credits_of(scene_of(prompt), seen_in(scene_of(shown)))
    assert found.share == pytest.approx(share)
    assert found.is_right == (share == 1)


def test_an_image_of_nothing_has_no_credit() -> None:
    for prompt in ("a cat", "three cats", "a cat on a red box on a blue background"):
        assert credits_of(scene_of(prompt), Seen({})).share == 0
    assert described("cat cat cat") == Seen({})


def test_figures_at_places_give_numbers_positions_and_activities() -> None:
    cat = Detection("cat", "red", 0.3, 0.5)
    ball = Detection("ball", "blue", 0.7, 0.5)
    seen = seen_among([cat, ball], "gray")
    assert dict(seen.counts) == {"cat": 1, "ball": 1}
    assert seen.colors == {("ball", "blue")}
    assert seen.relations == {("cat", "left of", "ball")}
    above = seen_among(
        [Detection("cat", "red", 0.5, 0.3), Detection("box", "red", 0.5, 0.8)], "red"
    )
    assert above.relations == {("cat", "on", "box"), ("box", "under", "cat")}
    five = seen_among([Detection("cat", "red", x / 5, 0.5) for x in range(5)], "gray")
    assert five.counts["cat"] == 5
    assert not credits_of(scene_of("four cats"), five).is_right


def test_the_glyphs_below_an_animal_are_its_activity() -> None:
    cat = Detection("cat", "red", 0.5, 0.3)
    pawns = [Detection("chess pawn", "red", x, 0.8) for x in (0.3, 0.7)]
    seen = seen_among([cat, *pawns], "gray")
    assert (dict(seen.counts), seen.activity) == ({"cat": 1}, "playing chess")
    beside = seen_among([cat, Detection("bicycle", "red", 0.95, 0.32)], "gray")
    assert (beside.activity, beside.counts["bicycle"]) == (None, 1)


def test_a_peak_of_presence_is_a_figure_at_the_mean_place_around_it() -> None:
    presence = torch.zeros(8, 8)
    presence[3, 2:4] = torch.tensor([0.6, 0.5])
    presence[6, 6] = 0.3  # below the threshold
    things = torch.zeros(len(THINGS), 8, 8)
    things[THINGS.index("owl"), 3, 2] = 5
    (found,) = _detections(presence, things, torch.zeros(11, 8, 8))
    assert found.name == "owl"
    assert found.x == pytest.approx((0.6 * 2.5 + 0.5 * 3.5) / 1.1 / 8)
    assert found.y == pytest.approx(3.5 / 8)


@needs_font
@pytest.mark.parametrize("name", READERS)
def test_readers_tell_renderings_of_a_prompt_from_others(name: str) -> None:
    """Nine renderings, each with its own prompt and with that of the next one."""
    import numpy as np

    from pretraining.scene_renderer import SceneRenderer

    texts = [
        "a panda",
        "a red ring",
        "three owls",
        "four pears",
        "a koala and a guitar",
        "a swan left of a star",
        "a blue ball left of a fox",
        "an apple on a box",
        "a crab under a cone",
    ]
    renderer = SceneRenderer()
    drawn = [
        Image.fromarray(renderer.draw_scene(scene_of(text), np.random.default_rng(5)).pixels)
        for text in texts
    ]
    reward = {"emoji_geneval": EmojiGeneval, "emoji_detector": EmojiDetector}[name]
    own = reward()(ImageBatch.of_images(drawn, [Prompt(text) for text in texts]))
    others = [Prompt(text) for text in (*texts[1:], texts[0])]
    other = reward(strict=True)(ImageBatch.of_images(drawn, others))
    assert own.values.mean() > 0.9
    assert own.parts["right"].sum() >= 8
    assert other.values.sum() == 0
    assert other.parts["share"].max() < 1


@pytest.mark.parametrize("reward", [EmojiGeneval, EmojiDetector])
def test_a_prompt_outside_the_grammar_has_a_reason_of_one_line(
    reward: type[EmojiGeneval | EmojiDetector],
) -> None:
    prompts = [Prompt(text) for text in ("a red fox", "", "word " * 999, "a cat", "two\ncats and")]
    images = [Image.new("RGB", (64, 48), "gray")] * len(prompts)
    found = reward()(ImageBatch.of_images(images, prompts))
    assert [math.isnan(value) for value in found.values] == [True, True, True, False, True]
    assert found.errors[3] is None
    for place, words in ((0, "'fox' cannot be 'red'"), (1, "no noun of the world"), (2, "word")):
        reason = str(found.errors[place])
        assert words in reason
        assert "emoji_geneval_train" in reason
        assert "\n" not in reason
        assert len(reason) < 500


def test_the_detector_is_the_witness_of_the_captioner_and_of_no_other_model() -> None:
    assert {one.id for one in choose_embedded([CARDS["emoji_geneval"]])} == {
        "clip_score",
        "emoji_detector",
    }
    assert {one.id for one in choose_embedded([CARDS["emoji_detector"]])} == {
        "alignment",  # of the captioner too
        "clip_score",
    }
    assert not {one.id for one in choose_embedded([CARDS["aesthetic"]])} & set(READERS)
    everywhere = choose_held_out([CARDS["aesthetic"]], available=lambda card: True, most=99)
    assert "hpsv2" in {one.id for one in everywhere}
    assert not {one.id for one in everywhere} & set(READERS)
