"""Scenes of the compositional world: captions and their parser, facts, splits and layouts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ddpo.rewards.scenes.grammar import (
    GROUNDS,
    KINDS,
    SHAPES,
    Figure,
    Scene,
    caption,
    holds,
    plural,
    scene_of,
    shared_facts,
    without,
    world_words,
)
from ddpo.rewards.scenes.world import ACTIVITIES, COLORS, NOUNS, SEEN_ANIMALS, UNSEEN_ANIMALS
from pretraining.render import FONT_PATHS, Renderer
from pretraining.scene_renderer import SceneRenderer, completed
from pretraining.scene_sampling import (
    activity_scenes,
    changed,
    denoiser_scene,
    is_held_out,
    random_scene,
    stated_part,
)

needs_font = pytest.mark.skipif(
    not any(Path(path).is_file() for path in FONT_PATHS),
    reason="Noto Color Emoji is not installed",
)
CAT = Figure("cat")
RED_BALL = Figure("ball", "red")
BY_HAND = {
    "a cat": Scene((CAT,)),
    "an owl on an orange background": Scene((Figure("owl"),), ground="orange"),
    "an orange ball": Scene((Figure("ball", "orange"),)),
    "a box on a gradient background": Scene((Figure("box"),), ground="gradient"),
    "three cats": Scene((CAT,), count=3),
    "two coffee cups on a striped background": Scene(
        (Figure("coffee cup"),), count=2, ground="striped"
    ),
    "four red boxes": Scene((Figure("box", "red"),), count=4),
    "a raccoon washing the dishes on a blue background": Scene(
        (Figure("raccoon"),), activity="washing the dishes", ground="blue"
    ),
    "a cat and a dog": Scene((CAT, Figure("dog")), relation="and"),
    "a dog and a cat": Scene((Figure("dog"), CAT), relation="and"),
    "a cat left of a red ball": Scene((CAT, RED_BALL), relation="left of"),
    "a red ball left of a cat": Scene((RED_BALL, CAT), relation="left of"),
    "a cat on a box": Scene((CAT, Figure("box")), relation="on"),
    "an egg under a green star on a white background": Scene(
        (Figure("egg"), Figure("star", "green")), relation="under", ground="white"
    ),
}
OUTSIDE = [
    "",
    "   ",
    "a",
    "two",
    "cat",
    "an cat",
    "a owl",
    "a cats",
    "two cat",
    "five cats",
    "one cat",
    "a red cat",
    "two red cats",
    "a capybara",
    "a teapot riding a bike",
    "two cats riding a bike",
    "a ball washing the dishes",
    "a cat and a cat",
    "a cat and a ball",
    "a cat left of a dog",
    "a ball left of a box",
    "a box on a cat",
    "a cat on a dog",
    "a cat on a blue",
    "a cat on a blue background on a red background",
    "a cat on a turquoise background",
    "a cat, a dog",
    "a cat and a dog and a fox",
    "the image contains a cat",
]


def every_scene() -> Iterator[Scene]:
    """Scenes of every kind: all nouns, colours, counts, activities, relations and grounds."""
    nouns = [Figure(noun) for noun in NOUNS]
    shapes = [Figure(shape, color) for shape, color in product(SHAPES, [None, *COLORS])]
    for figure, count, ground in product([*nouns, *shapes], (1, 2, 3, 4), (None, "red", "spotted")):
        yield Scene((figure,), count=count, ground=ground)
    for ground in GROUNDS:
        yield Scene((CAT,), ground=ground)
    for animal, activity in product(SEEN_ANIMALS | UNSEEN_ANIMALS, ACTIVITIES):
        yield Scene((Figure(animal),), activity=activity)
    for first, second in product(nouns, nouns):
        if first != second:
            yield Scene((first, second), relation="and")
    for noun, shape in product(nouns, shapes):
        yield Scene((shape, noun), relation="left of")
        for relation in ("left of", "on", "under"):
            yield Scene((noun, shape), relation=relation)


@pytest.mark.parametrize(("text", "scene"), BY_HAND.items())
def test_captions_of_scenes_worked_by_hand(text: str, scene: Scene) -> None:
    assert caption(scene) == text
    assert scene_of(text) == scene
    assert scene_of(f"  {text.upper()}.\n") == scene


def test_every_scene_comes_back_from_its_caption() -> None:
    texts = set()
    words = set(world_words())
    kinds = set()
    for scene in every_scene():
        text = caption(scene)
        assert scene_of(text) == scene
        assert words.issuperset(text.split())
        texts.add(text)
        kinds.add(scene.kind)
    assert len(texts) == len(set(every_scene()))  # no two scenes share a caption
    assert kinds == set(KINDS)


@pytest.mark.parametrize("text", OUTSIDE)
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="no caption of the world") as caught:
        scene_of(text)
    assert "\n" not in str(caught.value)


def test_irregular_plurals() -> None:
    right = {
        "mouse": "mice",
        "goose": "geese",
        "wolf": "wolves",
        "sheep": "sheep",
        "fly": "flies",
        "monkey": "monkeys",
        "cherry": "cherries",
        "box": "boxes",
        "bus": "buses",
        "tomato": "tomatoes",
        "coffee cup": "coffee cups",
        "fish": "fish",
    }
    assert {noun: plural(noun) for noun in right} == right


def test_facts_shared_by_hand() -> None:
    one = scene_of("a raccoon washing the dishes on a blue background")
    assert shared_facts(scene_of("a raccoon washing the dishes"), one) == 1
    assert shared_facts(one, scene_of("a raccoon washing the dishes")) == pytest.approx(2 / 3)
    assert shared_facts(scene_of("a cat washing the dishes"), one) == pytest.approx(1 / 2)
    assert shared_facts(scene_of("a cat"), one) == 0
    assert shared_facts(scene_of("a cat and a dog"), scene_of("a dog and a cat")) == pytest.approx(
        2 / 3
    )


def test_a_statement_holds_if_it_leaves_details_out() -> None:
    assert holds(scene_of("a cat"), scene_of("a cat riding a bike on a red background"))
    assert holds(scene_of("a cat on a ball"), scene_of("a cat on a red ball"))
    assert not holds(scene_of("a cat on a red ball"), scene_of("a cat on a ball"))
    assert not holds(scene_of("a cat"), scene_of("three cats"))
    assert not holds(scene_of("a cat"), scene_of("a cat and a dog"))
    assert not holds(scene_of("a dog and a cat"), scene_of("a cat and a dog"))


def test_random_statements_are_true_and_changes_false() -> None:
    changed_details = 0
    for index in range(600):
        rng = np.random.default_rng([1, index])
        scene = random_scene(rng, KINDS[index % len(KINDS)])
        assert scene.kind == KINDS[index % len(KINDS)]
        shown = completed(scene, rng)
        assert shown.ground in GROUNDS
        assert holds(scene, shown)
        stated = stated_part(shown, rng)
        assert holds(stated, shown)
        other = changed(stated, shown, rng)
        assert not holds(other, shown)
        assert scene_of(caption(other)) == other
        changed_details += len(stated.figures) == len(other.figures)
    assert changed_details > 500  # nearly all of them are changes of one detail


def test_details_can_be_left_out() -> None:
    scene = scene_of("a cat on a red ball on a blue background")
    assert caption(without(scene, "ground")) == "a cat on a red ball"
    assert caption(without(scene, "color")) == "a cat on a ball on a blue background"


def test_splits_of_activities() -> None:
    seen = activity_scenes("seen")
    held_out = activity_scenes("held_out")
    assert len(seen) == 120
    assert len(held_out) == 15
    assert len(activity_scenes("unseen")) == 38 * 3
    assert set(seen).isdisjoint(held_out)
    for activity in ACTIVITIES:
        assert sum(scene.activity == activity for scene in held_out) == 5
    for animal in SEEN_ANIMALS:  # each is seen with two activities at least
        assert sum(scene.figures[0].noun == animal for scene in seen) >= 2
    nouns = [Figure(noun) for noun in NOUNS]
    pairs = [Scene((a, b), relation="and") for a, b in product(nouns, nouns) if a != b]
    assert sum(map(is_held_out, pairs)) / len(pairs) == pytest.approx(1 / 7, abs=0.01)
    assert not any(is_held_out(Scene((noun,))) for noun in nouns)


def test_the_denoisers_data_leave_the_held_out_pairings_out() -> None:
    rng = np.random.default_rng(0)
    scenes = [denoiser_scene(rng) for _ in range(3000)]
    assert not any(map(is_held_out, scenes))
    assert sum(scene.kind == "one" for scene in scenes) / 3000 == pytest.approx(0.62, abs=0.03)
    assert {scene.kind for scene in scenes} == set(KINDS)
    stated = sum(scene.ground is not None for scene in scenes) / 3000
    assert stated == pytest.approx(0.3, abs=0.03)


def red(pixels: np.ndarray) -> np.ndarray:
    """The rows and columns of red pixels, `[pixels, 2]`."""
    levels = pixels.astype(int)
    return np.argwhere((levels[..., 0] > 150) & (levels[..., 1] < 90) & (levels[..., 2] < 90))


@needs_font
@pytest.mark.parametrize(
    ("text", "axis", "low", "high"),
    [
        ("a whale left of a red box on a white background", 1, 32, 64),
        ("a red box left of a whale on a white background", 1, 0, 32),
        ("a whale on a red box on a white background", 0, 32, 64),
        ("a whale under a red box on a white background", 0, 0, 32),
    ],
)
def test_simple_objects_lie_where_the_caption_says(
    text: str, axis: int, low: int, high: int
) -> None:
    renderer = SceneRenderer()
    for index in range(5):
        drawn = renderer.draw_scene(scene_of(text), np.random.default_rng(index))
        places = red(drawn.pixels)
        assert len(places) > 150
        assert places[:, axis].min() >= low
        assert places[:, axis].max() < high


@needs_font
@pytest.mark.parametrize(("word", "count"), [("two", 2), ("three", 3), ("four", 4)])
def test_as_many_figures_are_drawn_as_the_caption_counts(word: str, count: int) -> None:
    drawn = SceneRenderer().draw_scene(
        scene_of(f"{word} red balls on a blue background"), np.random.default_rng(0)
    )
    ground = np.abs(drawn.pixels.astype(int) - drawn.pixels[0, 0]).sum(2) > 60
    _, found = ndimage.label(ground)
    assert found == count


@needs_font
def test_two_nouns_are_drawn_in_the_stated_order() -> None:
    """A tomato is red and a whale is not."""
    renderer = SceneRenderer()
    for text, middle in (("a tomato and a whale", 17), ("a whale and a tomato", 47)):
        drawn = renderer.draw_scene(
            scene_of(f"{text} on a white background"), np.random.default_rng(0)
        )
        places = red(drawn.pixels)
        assert len(places) > 100
        assert places[:, 1].mean() == pytest.approx(middle, abs=3)


@needs_font
def test_grounds_have_their_colour_and_scenes_repeat() -> None:
    renderer = SceneRenderer()
    for name, color in COLORS.items():
        scene = Scene((CAT,), ground=name)
        first, again = (renderer.draw_scene(scene, np.random.default_rng(7)) for _ in range(2))
        assert np.array_equal(first.pixels, again.pixels)
        assert np.abs(first.pixels[0, 0].astype(int) - color).max() <= 14
        assert first.shown == scene


@needs_font
def test_captions_of_todays_renderings_are_of_the_grammar() -> None:
    renderer = Renderer()
    for index in range(300):
        drawing = renderer.draw(np.random.default_rng([8, index]))
        scene = scene_of(drawing.caption)
        assert caption(scene) == drawing.caption
        assert scene.figures[0].noun == drawing.noun
