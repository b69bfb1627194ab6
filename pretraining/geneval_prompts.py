"""The prompt lists of GenEval on the embedded world: `python -m pretraining.geneval_prompts`.

Writes `emoji_geneval_train.jsonl` and `emoji_geneval_test.jsonl` with the categories and fields of
GenEval's prompts (arXiv 2310.11513; djghosh13/geneval, prompts/evaluation_metadata.jsonl). The two
lists share neither a noun nor a simple object. Nouns have no colour in this world, and simple
objects always have one. So a position is that of a noun and a coloured object, and attribution
gives one colour to a simple object and another one to the background.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ddpo.io.atomic import write_text
from ddpo.rewards.scenes.grammar import COUNTS, Figure, Scene, caption
from ddpo.rewards.scenes.world import COLORS, OBJECTS, SEEN_ANIMALS, UNSEEN_ANIMALS
from pretraining.judge_training import say

__all__ = ["SIZES", "SPLITS", "Words", "prompt_rows"]

LISTS: Final = Path(__file__).parents[1] / "ddpo" / "prompts" / "lists"
KEY: Final = 18
PROP: Final = "bicycle"
"""The noun whose glyph is a part of an activity, which is in no list."""
SIZES: Final[Mapping[str, Mapping[str, int]]] = {
    "train": {
        "single_object": 36,
        "two_object": 60,
        "counting": 60,
        "colors": 33,
        "position": 60,
        "color_attr": 60,
    },
    "test": {
        "single_object": 24,
        "two_object": 36,
        "counting": 36,
        "colors": 22,
        "position": 36,
        "color_attr": 36,
    },
}
"""Split → category, GenEval's `tag` → number of prompts; of colours there are no more."""


@dataclass(frozen=True, slots=True)
class Words:
    """The nouns with a glyph and the simple objects of one list."""

    nouns: tuple[str, ...]
    shapes: tuple[str, ...]


_OBJECTS: Final = [noun for noun in OBJECTS if noun != PROP]
SPLITS: Final[Mapping[str, Words]] = {
    "train": Words((*SEEN_ANIMALS, *_OBJECTS[::2]), ("ball", "box", "cone")),
    "test": Words((*UNSEEN_ANIMALS, *_OBJECTS[1::2]), ("ring", "star")),
}


def prompt_rows(split: str) -> list[dict[str, Any]]:
    """The rows of a list: "tag", "include", "exclude" of counts, "background" and "prompt".

    Args:
        split: "train" or "test".
    """
    rows = []
    for place, (tag, size) in enumerate(SIZES[split].items()):
        rng = np.random.default_rng([KEY, list(SPLITS).index(split), place])
        scenes: dict[str, Scene] = {}
        while len(scenes) < size:
            scene = _scene(tag, len(scenes), SPLITS[split], rng)
            scenes.setdefault(caption(scene), scene)
        rows += [_row(tag, scene) for scene in scenes.values()]
    return rows


def _scene(tag: str, place: int, words: Words, rng: np.random.Generator) -> Scene:
    """A random scene of a category; numbers and positions take turns by `place`."""
    first, second = (Figure(str(noun)) for noun in rng.choice(words.nouns, 2, replace=False))
    color, ground = (str(name) for name in rng.choice(list(COLORS), 2, replace=False))
    shape = str(rng.choice(words.shapes))
    if tag == "single_object":
        return Scene((first,))
    if tag == "two_object":
        return Scene((first, second), relation="and")
    if tag == "counting":
        return Scene((first,), count=2 + place % len(COUNTS))
    thing = Figure(shape, color)
    if tag == "colors":
        return Scene((thing,))
    if tag == "color_attr":
        return Scene((thing,), ground=ground)
    relation = ("left of", "left of", "on", "under")[place % 4]
    figures = (thing, first) if place % 4 == 1 else (first, thing)
    return Scene(figures, relation=relation)


def _row(tag: str, scene: Scene) -> dict[str, Any]:
    """A prompt with the fields of GenEval; the position is that of the second thing."""
    include: list[dict[str, Any]] = [_included(figure, scene.count) for figure in scene.figures]
    row: dict[str, Any] = {"tag": tag, "include": include}
    if scene.relation not in (None, "and"):
        include.reverse()
        include[1]["position"] = [scene.relation, 0]
    if scene.count > 1:
        row["exclude"] = [{"class": scene.figures[0].noun, "count": scene.count + 1}]
    if scene.ground is not None:
        row["background"] = scene.ground
    return {**row, "prompt": caption(scene)}


def _included(figure: Figure, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {"class": figure.noun, "count": count}
    return found if figure.color is None else {**found, "color": figure.color}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=LISTS, help="folder of the lists")
    out = parser.parse_args().out
    for split in SPLITS:
        file = out / f"emoji_geneval_{split}.jsonl"
        rows = prompt_rows(split)
        write_text(file, "".join(f"{json.dumps(row)}\n" for row in rows))
        say(f"{file}: {len(rows)} prompts")


if __name__ == "__main__":
    main()
