"""Renderer of the embedded model's training images: an emoji on a background, with a caption.

The state of a `numpy.random.Generator` determines image and caption. Glyphs have one size and shift
by at most one pixel. They are not flipped: flips made side views a mirror-symmetric blend of both
orientations, and every further pose costs a small denoiser sharpness.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ddpo.errors import MissingResourceError
from ddpo.rewards.scenes.world import (
    ACTIVITIES,
    COLORS,
    NOUNS,
    SEEN_ANIMALS,
    TEXTURES,
    UNSEEN_ANIMALS,
    with_article,
)

SIZE: Final = 64  # pixels
FONT_SIZE: Final = 109  # the only bitmap strike of Noto Color Emoji
FONT_PATHS: Final = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",  # Debian, Ubuntu
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",  # Arch
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",  # Fedora
)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One image: `pixels` uint8 `[64, 64, 3]`, its `caption`, and the `noun` of its glyph."""

    pixels: Pixels
    caption: str
    noun: str


def find_font() -> Path:
    """The Noto Color Emoji font file of this machine.

    Raises:
        MissingResourceError: The font is not installed; the message says how to install it.
    """
    for path in FONT_PATHS:
        if Path(path).is_file():
            return Path(path)
    raise MissingResourceError(
        "Noto Color Emoji is not installed: apt-get install fonts-noto-color-emoji "
        "(or give --font PATH)"
    )


class Renderer:
    """A renderer of random training images, which rasterises each glyph once.

    Args:
        font: Noto Color Emoji file with the 109-pixel bitmap strike; None for the installed one.
        size: Side of the images in pixels.
    """

    def __init__(self, font: Path | None = None, size: int = SIZE) -> None:
        self.size = size
        self._font = ImageFont.truetype(str(font or find_font()), FONT_SIZE)
        self._glyphs: dict[str, Image.Image] = {}
        self._scaled: dict[tuple[str, int], Image.Image] = {}

    def draw(self, rng: np.random.Generator, noun: str | None = None) -> Drawing:
        """A random image with its caption, of `noun` if given."""
        names = list(NOUNS)
        chosen = noun or names[int(rng.integers(len(names)))]
        ground, ground_name = self._ground(rng)
        caption = with_article(chosen)
        if chosen in SEEN_ANIMALS | UNSEEN_ANIMALS and rng.random() < 0.12:
            activity = list(ACTIVITIES)[int(rng.integers(len(ACTIVITIES)))]
            self._paste_activity(ground, chosen, activity, rng)
            caption = f"{caption} {activity}"
        else:
            side = round(self.size * 0.90)
            corner = (self.size - side) // 2
            self._paste(ground, NOUNS[chosen], side, corner, corner, rng)
        if rng.random() < 0.3:
            caption = f"{caption} on {with_article(ground_name)} background"
        return Drawing(np.asarray(ground), caption, chosen)

    def _glyph(self, character: str) -> Image.Image:
        """The glyph on a transparent square, cropped to its visible part."""
        if character not in self._glyphs:
            canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
            ImageDraw.Draw(canvas).text((8, 8), character, font=self._font, embedded_color=True)
            box = canvas.getbbox()
            if box is None:
                code = f"U+{ord(character[0]):X}"
                raise MissingResourceError(
                    f"the font has no glyph for {character!r} ({code}); Unicode 15 is needed"
                )
            figure = canvas.crop(box)
            side = max(figure.size)
            square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
            square.paste(figure, ((side - figure.width) // 2, (side - figure.height) // 2))
            self._glyphs[character] = square
        return self._glyphs[character]

    def scaled_glyph(self, character: str, side: int) -> Image.Image:
        """The glyph as RGBA image `[side, side]`, rasterised once."""
        key = (character, side)
        if key not in self._scaled:
            self._scaled[key] = self._glyph(character).resize(
                (side, side), Image.Resampling.LANCZOS
            )
        return self._scaled[key]

    def _paste(
        self,
        ground: Image.Image,
        character: str,
        side: int,
        left: int,
        top: int,
        rng: np.random.Generator,
    ) -> None:
        figure = self.scaled_glyph(character, side)
        dx, dy = (int(v) for v in rng.integers(-1, 2, size=2))
        ground.paste(figure, (left + dx, top + dy), figure)

    def _paste_activity(
        self, ground: Image.Image, noun: str, activity: str, rng: np.random.Generator
    ) -> None:
        side = round(self.size * 0.60)
        self._paste(ground, NOUNS[noun], side, (self.size - side) // 2, 1, rng)
        props = ACTIVITIES[activity]
        prop_side = round(self.size * (0.52 if len(props) == 1 else 0.40))
        for index, character in enumerate(props):
            center = self.size * (index + 1) / (len(props) + 1)
            left = round(center - prop_side / 2)
            self._paste(ground, character, prop_side, left, self.size - prop_side - 1, rng)

    def _ground(self, rng: np.random.Generator) -> tuple[Image.Image, str]:
        """A random background, and its word in a caption."""
        names = list(COLORS)
        first, second = (names[i] for i in rng.choice(len(names), size=2, replace=False))
        a, b = (jittered(COLORS[name], rng) for name in (first, second))
        kind = rng.random()
        if kind < 0.70:
            return Image.new("RGB", (self.size, self.size), tuple(a)), first
        if kind < 0.82:
            return graded(a, b, self.size, rng), "gradient"
        texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
        return textured(texture, a, b, self.size, rng), texture


def jittered(color: tuple[int, int, int], rng: np.random.Generator) -> Pixels:
    """A colour near `color`, uint8 `[3]`, each channel off by at most 14."""
    return np.clip(np.array(color) + rng.integers(-14, 15, size=3), 0, 255).astype(np.uint8)


def graded(a: Pixels, b: Pixels, size: int, rng: np.random.Generator) -> Image.Image:
    """A square that changes from one colour to another, downwards or to the right."""
    y, x = np.mgrid[0:size, 0:size]
    mix = (y if rng.random() < 0.5 else x) / (size - 1)
    pixels = a * (1 - mix[..., None]) + b * mix[..., None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def textured(
    texture: str, a: Pixels, b: Pixels, size: int, rng: np.random.Generator
) -> Image.Image:
    """A striped, checkered or spotted square of two colours, with a random period."""
    y, x = np.mgrid[0:size, 0:size]
    period = int(rng.integers(12, 21))
    if texture == "striped":
        mask = ((x if rng.random() < 0.5 else y) // (period // 2)) % 2 == 0
    elif texture == "checkered":
        mask = (x // (period // 2) + y // (period // 2)) % 2 == 0
    else:
        squared = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2
        mask = squared < (period * 0.3) ** 2
    return Image.fromarray(np.where(mask[..., None], a, b).astype(np.uint8))
