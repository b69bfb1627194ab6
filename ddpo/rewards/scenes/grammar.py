"""Scenes of the compositional world, and the small fixed grammar of their captions.

A scene states one or two figures, and optionally a count, an activity, a relation and the ground.
`caption` writes a scene as a phrase, and `scene_of` parses it again:

    a cat | a red ball | three cats | a raccoon washing the dishes | a cat and a dog
    a cat left of a red ball | a red ball left of a cat | a cat on a box | a cat under a box

Each of them may end in "on a blue background".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from ddpo.rewards.scenes.world import (
    ACTIVITIES,
    COLORS,
    NOUNS,
    SEEN_ANIMALS,
    TEXTURES,
    UNSEEN_ANIMALS,
    with_article,
)

__all__ = [
    "COUNTS",
    "GROUNDS",
    "KINDS",
    "RELATIONS",
    "SHAPES",
    "Figure",
    "Scene",
    "caption",
    "facts",
    "holds",
    "plural",
    "scene_of",
    "shared_facts",
    "without",
    "world_words",
]

SHAPES: Final = ("ball", "box", "cone", "ring", "star")
"""The simple objects, which have any of the 11 colours."""
COUNTS: Final = ("two", "three", "four")
"""The words of the counts 2, 3 and 4."""
RELATIONS: Final = ("and", "left of", "on", "under")
"""Word between two figures. In "a cat and a dog", the cat is on the left."""
GROUNDS: Final = (*COLORS, "gradient", *TEXTURES)
KINDS: Final = ("one", "shape", "count", "activity", *RELATIONS)
"""The kinds of scenes, see `Scene.kind`."""
ANIMALS: Final = frozenset(SEEN_ANIMALS | UNSEEN_ANIMALS)
PLURALS: Final = {
    "sheep": "sheep",
    "deer": "deer",
    "fish": "fish",
    "bison": "bison",
    "moose": "moose",
    "squid": "squid",
    "shrimp": "shrimp",
    "mouse": "mice",
    "goose": "geese",
    "wolf": "wolves",
}
"""Irregular plurals of the nouns."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A noun of the world or a simple object, which may have a stated colour.

    Raises:
        ValueError: The noun or colour is not of the world, or a noun with a glyph has a colour.
    """

    noun: str
    color: str | None = None

    def __post_init__(self) -> None:
        if self.noun not in NOUNS and self.noun not in SHAPES:
            raise ValueError(f"{self.noun!r} is no noun of the world")
        if self.color is not None and (self.color not in COLORS or not self.is_shape):
            raise ValueError(f"{self.noun!r} cannot be {self.color!r}")

    @property
    def is_shape(self) -> bool:
        """True for a simple object, which has no glyph."""
        return self.noun in SHAPES


@dataclass(frozen=True, slots=True)
class Scene:
    """Content of an image, as far as it is stated.

    Args:
        figures: One figure, or two figures with a relation.
        count: Number of copies of a single figure, 1 … 4.
        activity: Activity of a single animal, of `ACTIVITIES`.
        relation: Word between two figures, of `RELATIONS`.
        ground: Word of the background, of `GROUNDS`; None if it is not stated.

    Raises:
        ValueError: The combination is not of the world.
    """

    figures: tuple[Figure, ...]
    count: int = 1
    activity: str | None = None
    relation: str | None = None
    ground: str | None = None

    def __post_init__(self) -> None:
        if self.ground is not None and self.ground not in GROUNDS:
            raise ValueError(f"{self.ground!r} is no background of the world")
        if self.relation is None:
            self._check_one()
        else:
            self._check_two()

    @property
    def kind(self) -> str:
        """The kind of the scene, of `KINDS`: what its caption composes."""
        if self.relation is not None:
            return self.relation
        if self.activity is not None:
            return "activity"
        if self.count > 1:
            return "count"
        return "shape" if self.figures[0].is_shape else "one"

    def _check_one(self) -> None:
        if len(self.figures) != 1:
            raise ValueError(f"a scene without a relation has one figure, not {len(self.figures)}")
        if self.count not in range(1, len(COUNTS) + 2):
            raise ValueError(f"a count is 1 … {len(COUNTS) + 1}, not {self.count}")
        if self.activity is None:
            return
        if self.activity not in ACTIVITIES:
            raise ValueError(f"{self.activity!r} is no activity of the world")
        if self.count != 1 or self.figures[0].noun not in ANIMALS:
            raise ValueError("an activity has exactly one animal")

    def _check_two(self) -> None:
        if self.relation not in RELATIONS:
            raise ValueError(f"{self.relation!r} is no relation of the world")
        if len(self.figures) != 2 or self.count != 1 or self.activity is not None:
            raise ValueError("a relation has two figures, no count and no activity")
        first, second = self.figures
        shapes = (first.is_shape, second.is_shape)
        if self.relation == "and" and (any(shapes) or first == second):
            raise ValueError("'and' joins two different nouns with glyphs")
        if self.relation == "left of" and sum(shapes) != 1:
            raise ValueError("'left of' joins a noun with a glyph and a simple object")
        if self.relation in ("on", "under") and shapes != (False, True):
            raise ValueError(f"{self.relation!r} joins a noun with a glyph to a simple object")


def plural(noun: str) -> str:
    """The plural of a noun of the world: "cats", "mice", "coffee cups", "cherries"."""
    if noun in PLURALS:
        return PLURALS[noun]
    if re.search(r"(s|x|sh|ch|tomato)$", noun):
        return noun + "es"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + "s"


SINGULARS: Final = {plural(noun): noun for noun in (*NOUNS, *SHAPES)}


def caption(scene: Scene) -> str:
    """The phrase of a scene, which `scene_of` parses to the same scene."""
    first, *rest = (_phrase(figure) for figure in scene.figures)
    if scene.count > 1:
        figure = scene.figures[0]
        words = [COUNTS[scene.count - 2], *([figure.color] if figure.color else [])]
        first = " ".join([*words, plural(figure.noun)])
    parts = [first]
    if scene.activity is not None:
        parts.append(scene.activity)
    if scene.relation is not None:
        parts += [scene.relation, *rest]
    if scene.ground is not None:
        parts.append(f"on {with_article(scene.ground)} background")
    return " ".join(parts)


def _phrase(figure: Figure) -> str:
    return with_article(f"{figure.color} {figure.noun}" if figure.color else figure.noun)


def scene_of(text: str) -> Scene:
    """The scene of a caption.

    Args:
        text: Phrase of the grammar; letter case, outer white space and a final stop do not count.

    Raises:
        ValueError: The text is not of the grammar.
    """
    rest = " ".join(text.lower().split()).removesuffix(".")
    try:
        return _scene_of(rest)
    except ValueError as error:
        raise ValueError(f"no caption of the world: {text!r} ({error})") from error


def _scene_of(rest: str) -> Scene:
    ground = None
    if found := re.fullmatch(r"(.+) on an? (\w+) background", rest):
        rest, ground = found.groups()
    first, *others = rest.split(" ", 1)
    if first in COUNTS and others:
        color, many = _color_and_noun(others[0])
        if many not in SINGULARS:
            raise ValueError(f"{many!r} is no plural of the world")
        figure = Figure(SINGULARS[many], color)
        return Scene((figure,), count=COUNTS.index(first) + 2, ground=ground)
    for activity in ACTIVITIES:
        if rest.endswith(f" {activity}"):
            animal = rest.removesuffix(f" {activity}")
            return Scene((_figure_of(animal),), activity=activity, ground=ground)
    for relation in RELATIONS:
        left, joined, right = rest.partition(f" {relation} ")
        if joined:
            figures = (_figure_of(left), _figure_of(right))
            return Scene(figures, relation=relation, ground=ground)
    return Scene((_figure_of(rest),), ground=ground)


def _figure_of(phrase: str) -> Figure:
    color, noun = _color_and_noun(re.sub(r"^an? ", "", phrase))
    figure = Figure(noun, color)
    if _phrase(figure) != phrase:
        raise ValueError(f"{phrase!r} is written {_phrase(figure)!r}")
    return figure


def _color_and_noun(words: str) -> tuple[str | None, str]:
    first, space, noun = words.partition(" ")
    return (first, noun) if space and first in COLORS else (None, words)


Fact = tuple[str, ...]


@lru_cache(maxsize=8192)
def facts(scene: Scene) -> frozenset[Fact]:
    """The separate statements of a scene: nouns, colours, count, activity, relation, ground.

    A count of one is no statement of its own.
    """
    found: set[Fact] = {("noun", figure.noun) for figure in scene.figures}
    found |= {("color", f.noun, f.color) for f in scene.figures if f.color is not None}
    if scene.count > 1:
        found.add(("count", str(scene.count)))
    if scene.activity is not None:
        found.add(("activity", scene.activity))
    if scene.relation is not None:
        found.add(("relation", scene.relation, *(figure.noun for figure in scene.figures)))
    if scene.ground is not None:
        found.add(("ground", scene.ground))
    return frozenset(found)


def holds(stated: Scene, shown: Scene) -> bool:
    """True if an image of `shown` is one of `stated`, which may say less.

    "a cat" holds for a cat that rides a bike, but neither for three cats nor for a cat and a dog.
    """
    if len(stated.figures) != len(shown.figures) or stated.count != shown.count:
        return False
    return facts(stated) <= facts(shown)


def shared_facts(reference: Scene, candidate: Scene) -> float:
    """The share of the facts of `reference` that `candidate` states too, in [0, 1]."""
    stated = facts(reference)
    return len(stated & facts(candidate)) / len(stated)


def without(scene: Scene, detail: str) -> Scene:
    """The scene without one stated detail: "ground", or "color" of all its figures."""
    if detail == "ground":
        return replace(scene, ground=None)
    return replace(scene, figures=tuple(Figure(figure.noun) for figure in scene.figures))


def world_words() -> list[str]:
    """Every possible word of a caption of the world, sorted."""
    phrases = (
        *NOUNS,
        *SHAPES,
        *SINGULARS,
        *ACTIVITIES,
        *COUNTS,
        *RELATIONS,
        *GROUNDS,
        "a an background",
    )
    return sorted({word for phrase in phrases for word in phrase.split()})
