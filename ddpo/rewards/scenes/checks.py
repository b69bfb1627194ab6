"""Checks of a prompt's scene against what a reader found in an image.

As in GenEval (arXiv 2310.11513), an image is right if every stated thing, number, colour and
position is there. A wrong number has the partial credit 1 - |found - stated| / stated of Flow-GRPO
(arXiv 2505.05470; gen_eval.py of yifan123/reward-server), but not below 0. There a thing in a wrong
number has no credit for its colour and position; here each statement counts alone. Unlike
GenEval's, these checks also count other things in the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ddpo.rewards.scenes.grammar import Scene

__all__ = ["Seen", "credits_of", "seen_in"]

Relation = tuple[str, str, str]
"""A first noun, the word between both, and a second noun."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Content that a reader found in an image.

    Args:
        counts: Noun → number of its figures.
        colors: Pairs of a noun and the colour of one of its figures.
        relations: Positions of figures relative to each other.
        activity: Activity of a single animal; None for none.
        ground: Word of the background; None if it is unknown.
    """

    counts: Mapping[str, int]
    colors: frozenset[tuple[str, str]] = frozenset()
    relations: frozenset[Relation] = frozenset()
    activity: str | None = None
    ground: str | None = None


@dataclass(slots=True)
class Credits:
    """The credits in [0, 1] of the statements of a prompt, by kind."""

    objects: list[float] = field(default_factory=list)
    colors: list[float] = field(default_factory=list)
    positions: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @property
    def all(self) -> list[float]:
        """Every credit."""
        return [*self.objects, *self.colors, *self.positions, *self.others]

    @property
    def share(self) -> float:
        """The mean credit."""
        return sum(self.all) / len(self.all)

    @property
    def is_right(self) -> bool:
        """True if every statement holds."""
        return min(self.all) == 1


def seen_in(scene: Scene) -> Seen:
    """The content of a complete scene."""
    counts = Counter(figure.noun for figure in scene.figures)
    if scene.relation is None:
        counts = Counter({scene.figures[0].noun: scene.count})
    relations = frozenset[Relation]()
    if scene.relation is not None:
        first, second = scene.figures
        relations = frozenset({(first.noun, scene.relation, second.noun)})
    return Seen(
        counts,
        frozenset((f.noun, f.color) for f in scene.figures if f.color is not None),
        relations,
        scene.activity,
        scene.ground,
    )


def credits_of(stated: Scene, seen: Seen) -> Credits:
    """The credits of a prompt's statements in an image.

    "and" states no order. A prompt without an activity or a ground accepts any. The last credit is
    that nothing else is there, and an image without a stated thing does not get it.
    """
    wanted = seen_in(stated).counts
    found = Credits()
    for noun, number in wanted.items():
        error = abs(seen.counts.get(noun, 0) - number) / number
        found.objects.append(max(0.0, 1.0 - error))
    for figure in stated.figures:
        if figure.color is not None:
            found.colors.append(float((figure.noun, figure.color) in seen.colors))
    if stated.relation not in (None, "and"):
        first, second = (figure.noun for figure in stated.figures)
        found.positions.append(float((first, stated.relation, second) in seen.relations))
    if stated.activity is not None:
        found.others.append(float(seen.activity == stated.activity))
    if stated.ground is not None:
        found.colors.append(float(seen.ground == stated.ground))
    shown = {noun for noun, number in seen.counts.items() if number}
    found.others.append(float(shown <= wanted.keys() and bool(shown)))
    return found
