"""Random scenes, true captions that say less, false captions that come close, and the splits.

Judges see every combination. The denoiser's data leave out the held-out pairings, so that new
combinations differ from those of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from ddpo.rewards.scenes.grammar import (
    GROUNDS,
    KINDS,
    RELATIONS,
    SHAPES,
    Figure,
    Scene,
    holds,
    without,
)
from ddpo.rewards.scenes.world import ACTIVITIES, COLORS, NOUNS, SEEN_ANIMALS, UNSEEN_ANIMALS

__all__ = [
    "activity_scenes",
    "changed",
    "denoiser_scene",
    "is_held_out",
    "random_scene",
    "stated_part",
]

NAMES: Final = tuple(NOUNS)
ANIMAL_NAMES: Final = tuple(SEEN_ANIMALS | UNSEEN_ANIMALS)
SHARES: Final = {
    "one": 0.22,
    "activity": 0.20,
    "count": 0.16,
    "and": 0.14,
    "left of": 0.10,
    "on": 0.07,
    "under": 0.07,
    "shape": 0.04,
}
"""Share of each kind among the random scenes of the judges."""
DENOISER_SHARES: Final = {
    "one": 0.62,
    "activity": 0.01,
    "count": 0.12,
    "and": 0.10,
    "left of": 0.05,
    "on": 0.03,
    "under": 0.03,
    "shape": 0.04,
}
"""Share of each kind in the denoiser's data: single nouns are frequent, compositions are rare.

A model of these data has room to get better at compositions, at activities most of all.
"""
STATED_GROUND: Final = 0.3  # as in `Renderer`


Change = Callable[[np.random.Generator], Scene | None]


def _pick(names: Iterable[str], rng: np.random.Generator) -> str:
    options = list(names)
    return options[int(rng.integers(len(options)))]


def random_scene(rng: np.random.Generator, kind: str | None = None) -> Scene:
    """A random scene without a ground, of `kind` if given; simple objects have a colour."""
    chosen = kind or list(SHARES)[int(rng.choice(len(SHARES), p=list(SHARES.values())))]
    noun = Figure(_pick(NAMES, rng))
    shape = Figure(_pick(SHAPES, rng), _pick(COLORS, rng))
    if chosen == "one":
        return Scene((noun,))
    if chosen == "shape":
        return Scene((shape,))
    if chosen == "activity":
        animal = Figure(_pick(ANIMAL_NAMES, rng))
        return Scene((animal,), activity=_pick(ACTIVITIES, rng))
    if chosen == "count":
        figure = shape if rng.random() < 0.2 else noun
        return Scene((figure,), count=int(rng.integers(2, 5)))
    if chosen == "and":
        other = Figure(_pick((name for name in NAMES if name != noun.noun), rng))
        return Scene((noun, other), relation="and")
    figures = (noun, shape)
    if chosen == "left of" and rng.random() < 0.5:
        figures = (shape, noun)
    return Scene(figures, relation=chosen)


def denoiser_scene(rng: np.random.Generator) -> Scene:
    """A random scene of the denoiser's data, which is never a held-out pairing.

    Its ground is stated in three of ten scenes, as in today's renderings.
    """
    while True:
        kind = list(DENOISER_SHARES)[
            int(rng.choice(len(DENOISER_SHARES), p=list(DENOISER_SHARES.values())))
        ]
        scene = random_scene(rng, kind)
        if not is_held_out(scene):
            break
    if rng.random() < STATED_GROUND:
        scene = replace(scene, ground=_pick(GROUNDS, rng))
    return scene


def stated_part(shown: Scene, rng: np.random.Generator) -> Scene:
    """The scene with ground and colours stated each with probability one half."""
    stated = shown
    for detail in ("ground", "color"):
        if rng.random() < 0.5:
            stated = without(stated, detail)
    return stated


def changed(stated: Scene, shown: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs from `stated` in one detail and does not hold for `shown`.

    The detail is a noun, a colour, the count, activity, relation, order or ground.
    """
    changes = _changes(stated)
    for index in rng.permutation(len(changes)):
        other = changes[int(index)](rng)
        if other is not None and not holds(other, shown):
            return other
    return random_scene(rng, KINDS[int(rng.integers(len(KINDS)))])


def _changes(scene: Scene) -> list[Change]:
    """The changes that apply to a scene; each gives None where the result is not of the world."""
    changes: list[Change] = [lambda rng: _other_noun(scene, rng)]
    if any(figure.color for figure in scene.figures):
        changes.append(lambda rng: _other_color(scene, rng))
    if scene.ground is not None:
        changes.append(lambda rng: replace(scene, ground=_pick(GROUNDS, rng)))
    if scene.activity is not None:
        changes.append(lambda rng: replace(scene, activity=_pick(ACTIVITIES, rng)))
    elif scene.relation is None:
        changes.append(lambda rng: replace(scene, count=int(rng.integers(1, 5))))
    else:
        changes.append(lambda rng: _other_relation(scene, rng))
        changes.append(lambda rng: _with_figures(scene, scene.figures[::-1]))
    return changes


def _with_figures(
    scene: Scene, figures: tuple[Figure, ...], relation: str | None = None
) -> Scene | None:
    """The scene with other figures, or None if that is no scene of the world."""
    try:
        return replace(scene, figures=figures, relation=relation or scene.relation)
    except ValueError:
        return None


def _other_noun(scene: Scene, rng: np.random.Generator) -> Scene | None:
    place = int(rng.integers(len(scene.figures)))
    old = scene.figures[place]
    if old.is_shape:
        new = Figure(_pick(SHAPES, rng), old.color)
    else:
        new = Figure(_pick(NAMES if scene.activity is None else ANIMAL_NAMES, rng))
    return _with_figures(scene, (*scene.figures[:place], new, *scene.figures[place + 1 :]))


def _other_color(scene: Scene, rng: np.random.Generator) -> Scene:
    color = _pick(COLORS, rng)
    figures = tuple(Figure(f.noun, color if f.color else None) for f in scene.figures)
    return replace(scene, figures=figures)


def _other_relation(scene: Scene, rng: np.random.Generator) -> Scene | None:
    relation = _pick((name for name in RELATIONS if name != "and"), rng)
    ordered = tuple(sorted(scene.figures, key=lambda figure: figure.is_shape))
    return _with_figures(scene, ordered, relation=relation)


def is_held_out(scene: Scene) -> bool:
    """True for a pairing that the denoiser's data leave out.

    Every third seen animal lacks one activity, and each activity is left out equally often. One in
    seven ordered pairs of figures is left out. The rules depend only on places in the lists.
    """
    if scene.activity is not None:
        animals = list(SEEN_ANIMALS)
        noun = scene.figures[0].noun
        if noun not in animals:
            return False
        third, rest = divmod(animals.index(noun), len(ACTIVITIES))
        return rest == 0 and list(ACTIVITIES)[third % len(ACTIVITIES)] == scene.activity
    if scene.relation is None:
        return False
    places = [(*NAMES, *SHAPES).index(figure.noun) for figure in scene.figures]
    return (2 * places[0] + 3 * places[1]) % 7 == 0


def activity_scenes(split: str) -> list[Scene]:
    """The animals of a split with every activity.

    Args:
        split: "seen" for the pairings of training, "held_out" for pairings of the same animals that
            training leaves out, "unseen" for the animals that training leaves out.
    """
    animals = UNSEEN_ANIMALS if split == "unseen" else SEEN_ANIMALS
    scenes = [Scene((Figure(a),), activity=activity) for a in animals for activity in ACTIVITIES]
    return [s for s in scenes if split == "unseen" or is_held_out(s) == (split == "held_out")]
