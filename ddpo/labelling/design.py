"""The order of the pairs and the sides of their images for one rater: random and balanced."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from ddpo.labelling.pair import LabelPair

__all__ = ["BLOCK", "Presentation", "presentations", "seeded"]

BLOCK: Final = 10  # pairs of one comparison, in which each model is half of the time on the left

Letter = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Presentation:
    """One pair as a rater sees it."""

    pair: LabelPair
    left: Letter  # the image on the left

    @property
    def right(self) -> Letter:
        """The image on the right."""
        return "b" if self.left == "a" else "a"


def seeded(seed: int, *words: str) -> np.random.Generator:
    """A generator of random numbers for a seed and some words, the same on every machine."""
    text = "\0".join((str(seed), *words)).encode("utf-8", "replace")
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()))


def presentations(pairs: Sequence[LabelPair], rater: str, seed: int) -> list[Presentation]:
    """All pairs in the rater's own order.

    In each block of ten pairs of one comparison, both models are on the left five times. So a rater
    who stops early has seen nearly balanced sides, too.

    Args:
        pairs: pairs in any order.
        rater: name of the rater.
        seed: seed of the design.
    """
    random = seeded(seed, "order", rater)
    ordered = sorted(pairs, key=lambda pair: pair.key)
    shuffled = [ordered[place] for place in random.permutation(len(ordered))]
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, pair in enumerate(shuffled):
        places[pair.models].append(place)
    lefts: dict[int, Letter] = {}
    for models in sorted(places):
        sides = _balanced_sides(len(places[models]), seeded(seed, "sides", rater, *models))
        lefts |= zip(places[models], sides, strict=True)
    return [Presentation(pair, lefts[place]) for place, pair in enumerate(shuffled)]


def _balanced_sides(count: int, random: np.random.Generator) -> list[Letter]:
    """The image on the left of each pair: half of each block, and half but one of an odd rest."""
    sides: list[Letter] = []
    while len(sides) < count:
        size = min(BLOCK, count - len(sides))
        firsts = size // 2 + (int(random.integers(2)) if size % 2 else 0)
        block: list[Letter] = ["a"] * firsts + ["b"] * (size - firsts)
        sides += [block[place] for place in random.permutation(size)]
    return sides
