"""Synthetic images with known scores, 512×512 uint8 RGB, to which the goldens of cards refer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ddpo.registry import unknown_name

__all__ = ["FIXTURES", "draw_fixture"]

SIDE: Final = 512
Pixels = NDArray[np.uint8]  # [512, 512, 3]


def black() -> Pixels:
    """All zeros."""
    return np.zeros((SIDE, SIDE, 3), np.uint8)


def grey() -> Pixels:
    """All 128."""
    return np.full((SIDE, SIDE, 3), 128, np.uint8)


def gradient() -> Pixels:
    """Red rises to the right, green downwards, blue along the diagonal; 0 … 255, integers."""
    y, x = np.mgrid[:SIDE, :SIDE]
    channels = [x * 255 // 511, y * 255 // 511, (x + y) * 255 // 1022]
    return np.stack(channels, axis=-1).astype(np.uint8)


def checker() -> Pixels:
    """Black and white squares of 8 pixels, black in the upper left corner."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.repeat(((x // 8 + y // 8) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)


def sin() -> Pixels:
    """Waves around 127.5 with phases x / 7 and y / 11, truncated to integers.

    The amplitude is 127.5 in red, half of it in green and a quarter in blue.
    """
    y, x = np.mgrid[:SIDE, :SIDE]
    wave: NDArray[np.float64] = np.sin(x / 7) * np.cos(y / 11)
    colored: NDArray[np.float64] = 127.5 + 127.5 * wave[..., None] * np.array([1, 0.5, 0.25])
    return colored.astype(np.uint8)


def noise() -> Pixels:
    """Uniform noise of NumPy's legacy generator with seed 0, whose stream is frozen."""
    return np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


FIXTURES: Final[dict[str, Callable[[], Pixels]]] = {
    "black": black,
    "checker": checker,
    "gradient": gradient,
    "grey": grey,
    "noise": noise,
    "sin": sin,
}


def draw_fixture(name: str) -> Pixels:
    """The fixture image of a name.

    Raises:
        UnknownNameError: There is no such fixture.
    """
    if name not in FIXTURES:
        raise unknown_name("fixture", name, FIXTURES)
    return FIXTURES[name]()
