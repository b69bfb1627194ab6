"""The two worlds of embedded models: single glyphs (`emoji`), and scenes (`emoji-scenes`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ddpo.rewards.scenes.grammar import caption, world_words
from pretraining.render import Drawing, Renderer
from pretraining.scene_renderer import SceneRenderer
from pretraining.scene_sampling import denoiser_scene
from pretraining.tokenizer import caption_words

__all__ = ["WORLDS", "Draw", "World"]

Draw = Callable[[np.random.Generator], Drawing]
"""Function of a generator that draws a random training image with its caption."""


@dataclass(frozen=True, slots=True)
class World:
    """The training images of an embedded model, and the words of their captions.

    Args:
        words: Function that returns every word that becomes one token.
        renderer: Function of the font's file, or None for the installed one.
    """

    words: Callable[[], list[str]]
    renderer: Callable[[Path | None], Draw]


def _glyphs(font: Path | None) -> Draw:
    return Renderer(font).draw


def _scenes(font: Path | None) -> Draw:
    renderer = SceneRenderer(font)

    def draw(rng: np.random.Generator) -> Drawing:
        image = renderer.draw_scene(denoiser_scene(rng), rng)
        return Drawing(image.pixels, caption(image.stated), image.stated.figures[0].noun)

    return draw


def scene_words() -> list[str]:
    """The words of both worlds, so that prompts of the first are prompts of the second."""
    return sorted({*caption_words(), *world_words()})


WORLDS: Final = {
    "emoji": World(caption_words, _glyphs),
    "emoji-scenes": World(scene_words, _scenes),
}
