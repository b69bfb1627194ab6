"""Renderer of scenes: figures in a fixed layout of each kind of scene, on a ground.

A generator's state determines the image. What a scene leaves open (ground, colours of simple
objects) is chosen at random, and the complete scene is returned with the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from ddpo.rewards.scenes.grammar import GROUNDS, Figure, Scene
from ddpo.rewards.scenes.world import ACTIVITIES, COLORS, NOUNS, TEXTURES
from pretraining.render import Pixels, Renderer, graded, jittered, textured

__all__ = ["SceneImage", "SceneRenderer", "Spot", "completed", "layout"]

Recolor = Callable[[Image.Image], Image.Image]
"""Function from the RGBA image of a glyph to one in other colours."""
PLAIN: Final = 0.75
"""Share of plain grounds where the scene leaves the ground open."""
ONE_SIDE: Final = 0.90
HALF_SIDE: Final = 0.48
SHAPE_SIDE: Final = 0.42
ANIMAL_SIDE: Final = 0.60  # as in `Renderer`
SUPERSAMPLING: Final = 4


@dataclass(frozen=True, slots=True)
class SceneImage:
    """One image, uint8 `[64, 64, 3]`, of a `stated` scene; `shown` states everything."""

    pixels: Pixels
    stated: Scene
    shown: Scene


@dataclass(frozen=True, slots=True)
class Spot:
    """A square place of a figure: centre and side in shares of the image's side.

    Args:
        x: Centre from the left.
        y: Centre from the top.
        side: Side of the square.
        touch: Edge of the square that the figure touches, "bottom" or "top"; None for the centre.
    """

    x: float
    y: float
    side: float
    touch: str | None = None


ROWS: Final[dict[int, tuple[Spot, ...]]] = {
    2: (Spot(0.26, 0.5, HALF_SIDE), Spot(0.74, 0.5, HALF_SIDE)),
    3: (Spot(0.5, 0.25, HALF_SIDE), Spot(0.26, 0.75, HALF_SIDE), Spot(0.74, 0.75, HALF_SIDE)),
    4: tuple(Spot(x, y, HALF_SIDE) for y in (0.26, 0.74) for x in (0.26, 0.74)),
}
"""Count → places of its copies."""


def completed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with a random ground and random colours where they are not stated.

    A random colour differs from the ground's, and of the ground all are equally likely within the
    plain and within the other ones.
    """
    taken = {figure.color for figure in scene.figures} | {scene.ground}
    ground = scene.ground
    if ground is None:
        plain = rng.random() < PLAIN
        names = [n for n in (COLORS if plain else GROUNDS[len(COLORS) :]) if n not in taken]
        ground = names[int(rng.integers(len(names)))]
    figures = []
    for figure in scene.figures:
        if figure.is_shape and figure.color is None:
            names = [name for name in COLORS if name != ground]
            figure = Figure(figure.noun, names[int(rng.integers(len(names)))])
        figures.append(figure)
    return replace(scene, figures=tuple(figures), ground=ground)


class SceneRenderer(Renderer):
    """A renderer of scenes, with the glyphs and sizes of `Renderer`."""

    def draw_scene(
        self, stated: Scene, rng: np.random.Generator, recolor: Recolor | None = None
    ) -> SceneImage:
        """An image of a scene.

        Args:
            stated: Scene, which may leave details open.
            rng: Generator of the open details, shades and shifts of at most one pixel.
            recolor: Function that changes the colours of the glyphs; None to keep them.
        """
        shown = completed(stated, rng)
        places = layout(shown, self.size)
        return SceneImage(
            self.draw_layout(places, shown.ground or GROUNDS[0], rng, recolor), stated, shown
        )

    def draw_layout(
        self,
        places: Sequence[tuple[Figure | str, Spot]],
        ground: str,
        rng: np.random.Generator,
        recolor: Recolor | None = None,
    ) -> Pixels:
        """Figures and glyphs at their places on a ground of `GROUNDS`, as `draw_scene`."""
        image = self._named_ground(ground, rng)
        for content, spot in places:
            drawn = self._drawn(content, spot, rng, recolor)
            self._paste_at(image, drawn, spot, rng)
        return np.asarray(image)

    def _drawn(
        self,
        content: Figure | str,
        spot: Spot,
        rng: np.random.Generator,
        recolor: Recolor | None,
    ) -> Image.Image:
        """The RGBA image of a figure, or of a glyph given by its character."""
        if isinstance(content, str):
            return self._recolored(content, spot, recolor)
        if content.is_shape:
            color = jittered(COLORS[content.color or "white"], rng)
            return shape_image(content.noun, color, round(self.size * spot.side))
        return self._recolored(NOUNS[content.noun], spot, recolor)

    def _recolored(self, character: str, spot: Spot, recolor: Recolor | None) -> Image.Image:
        glyph = self.scaled_glyph(character, round(self.size * spot.side))
        return glyph if recolor is None else recolor(glyph)

    def _paste_at(
        self, image: Image.Image, drawn: Image.Image, spot: Spot, rng: np.random.Generator
    ) -> None:
        dx, dy = (int(v) for v in rng.integers(-1, 2, size=2))
        left = round(spot.x * self.size - drawn.width / 2)
        top = round(spot.y * self.size - drawn.height / 2)
        box = drawn.getbbox()
        if spot.touch is not None and box is not None:
            top += drawn.height - box[3] if spot.touch == "bottom" else -box[1]
        image.paste(drawn, (left + dx, top + dy), drawn)

    def _named_ground(self, name: str, rng: np.random.Generator) -> Image.Image:
        if name in COLORS:
            shade = jittered(COLORS[name], rng)
            return Image.new("RGB", (self.size, self.size), tuple(int(v) for v in shade))
        pair = rng.choice(len(COLORS), size=2, replace=False)
        a, b = (jittered(list(COLORS.values())[i], rng) for i in pair)
        if name in TEXTURES:
            return textured(name, a, b, self.size, rng)
        return graded(a, b, self.size, rng)


def layout(scene: Scene, size: int) -> list[tuple[Figure | str, Spot]]:
    """The figures of a scene and the glyphs of its activity, each with its place.

    Args:
        scene: Scene.
        size: Side of the image in pixels.
    """
    if scene.activity is None:
        return [*_places(scene)]
    props = ACTIVITIES[scene.activity]
    side = 0.52 if len(props) == 1 else 0.40
    places: list[tuple[Figure | str, Spot]] = [
        (scene.figures[0], Spot(0.5, 0.315, ANIMAL_SIDE)),
    ]
    for index, character in enumerate(props):
        place = Spot((index + 1) / (len(props) + 1), 1 - side / 2 - 1 / size, side)
        places.append((character, place))
    return places


def _places(scene: Scene) -> list[tuple[Figure, Spot]]:
    """The figures of a scene without an activity, each with its place."""
    first, *rest = scene.figures
    if scene.count > 1:
        return [(first, spot) for spot in ROWS[scene.count]]
    if not rest:
        return [(first, Spot(0.5, 0.5, 0.7 if first.is_shape else ONE_SIDE))]
    second = rest[0]
    if scene.relation == "and":
        return list(zip(scene.figures, ROWS[2], strict=True))
    if scene.relation == "left of":
        narrow = 0 if first.is_shape else 1
        sides = [SHAPE_SIDE if index == narrow else 0.56 for index in (0, 1)]
        centers = (sides[0] / 2 + 0.01, 0.99 - sides[1] / 2)
        return [
            (figure, Spot(x, 0.5, side))
            for figure, x, side in zip(scene.figures, centers, sides, strict=True)
        ]
    top = scene.relation == "on"
    animal = Spot(0.5, 0.31 if top else 0.69, 0.56, "bottom" if top else "top")
    shape = Spot(0.5, 0.775 if top else 0.225, SHAPE_SIDE)
    return [(first, animal), (second, shape)]


def shape_image(shape: str, color: Pixels, side: int) -> Image.Image:
    """A simple object as RGBA image `[side, side]`, with a lighter part and a dark outline."""
    length = side * SUPERSAMPLING
    image = Image.new("RGBA", (length, length), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    fill = tuple(int(v) for v in color)
    light = tuple(int(v + (255 - v) * 0.45) for v in color)
    dark = tuple(int(v * 0.45) if max(fill) > 60 else 120 for v in color)
    width = round(length * 0.045)
    low = width
    high = length - width
    if shape == "ball":
        pen.ellipse((low, low, high, high), fill, dark, width)
        pen.ellipse((0.22 * length, 0.18 * length, 0.50 * length, 0.44 * length), light)
    elif shape == "box":
        lid = 0.30 * length
        pen.rectangle((low, lid, high, high), fill, dark, width)
        pen.polygon(
            _points(length, (0.03, 0.30, 0.22, 0.06, 0.78, 0.06, 0.97, 0.30)), light, dark, width
        )
    elif shape == "cone":
        pen.polygon(_points(length, (0.5, 0.03, 0.97, 0.95, 0.03, 0.95)), fill, dark, width)
        pen.polygon(_points(length, (0.48, 0.18, 0.42, 0.86, 0.18, 0.86)), light)
    elif shape == "ring":
        pen.ellipse((low, low, high, high), fill, dark, width)
        inner = (0.30 * length, 0.30 * length, 0.70 * length, 0.70 * length)
        pen.ellipse(inner, (0, 0, 0, 0), dark, width)
        pen.arc(
            (0.14 * length, 0.14 * length, 0.86 * length, 0.86 * length), 170, 260, light, width
        )
    else:
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 0.49, 0.22)
        around = np.stack([0.5 + reach * np.cos(angles), 0.53 + reach * np.sin(angles)], 1)
        pen.polygon(_points(length, around.flatten()), fill, dark, width)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _points(length: int, shares: object) -> list[float]:
    return [float(share) * length for share in np.asarray(shares, dtype=float)]
