"""The embedded detector of scenes: a small convolutional network that finds figures by their place.

It reads an image of 64×64 pixels as figures on a grid of 8×8 cells, each with a noun and a colour,
and one ground for the whole. Numbers and positions follow from the figures found, as in GenEval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ddpo.images import floats_of
from ddpo.io.tensors import load_tensors
from ddpo.rewards.scenes.checks import Relation, Seen
from ddpo.rewards.scenes.grammar import ANIMALS, GROUNDS, SHAPES
from ddpo.rewards.scenes.world import ACTIVITIES, COLORS, NOUNS

__all__ = ["CELLS", "PROPS", "SIDE", "THINGS", "Detection", "SceneDetector", "load_detector"]

SIDE: Final = 64
CELLS: Final = 8
BATCH: Final = 64
PROPS: Final = {"♟": "chess pawn", "🍽": "plate", "🧼": "soap"}
"""Glyph of an activity without a noun of its own → name of its class."""
THINGS: Final = (*NOUNS, *SHAPES, *PROPS.values())
COLOR_NAMES: Final = tuple(COLORS)
THRESHOLD: Final = 0.4
"""Presence from which a cell holds a figure."""
FEATURES: Final = 120


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU()
    )


class Residual(nn.Module):
    """Two convolutions of 3×3 beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        result: Tensor = features + self.body(features)
        return result


@dataclass(frozen=True, slots=True)
class Detection:
    """A figure found in an image.

    Args:
        name: Name of its class, of `THINGS`.
        color: Likeliest colour; only a simple object has a meaningful one.
        x: Centre from the left, in shares of the side.
        y: Centre from the top.
    """

    name: str
    color: str
    x: float
    y: float


class SceneDetector(nn.Module):
    """The network, from images `[batch, 3, 64, 64]` in [0, 1] to maps of 8×8 cells."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2, bias=False),
            nn.GroupNorm(8, 32),
            nn.SiLU(),
            _conv(32, 64, 2),
            Residual(64),
            _conv(64, FEATURES, 2),
            Residual(FEATURES),
            Residual(FEATURES),
            Residual(FEATURES),
        )
        self.conv_out = nn.Conv2d(FEATURES, 1 + len(THINGS) + len(COLORS), 1)
        self.ground = nn.Linear(FEATURES, len(GROUNDS))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits.

        Args:
            pixels: Images `[batch, 3, 64, 64]` in [0, 1].

        Returns:
            Presence `[batch, 8, 8]`, things `[batch, 141, 8, 8]`, colours `[batch, 11, 8, 8]` and
            grounds `[batch, 15]`.
        """
        features = self.body(pixels * 2 - 1)
        presence, things, colors = self.conv_out(features).split(
            [1, len(THINGS), len(COLORS)], dim=1
        )
        return presence[:, 0], things, colors, self.ground(features.mean((2, 3)))

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> Iterator[Seen]:
        """The content of each image, whose side becomes 64 by PIL's bicubic filter."""
        device = self.ground.weight.device
        square = [
            image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images
        ]
        for start in range(0, len(square), BATCH):
            pixels = floats_of(square[start : start + BATCH]).to(device)
            presence, *logits = (part.float().cpu() for part in self(pixels))
            for found in zip(presence.sigmoid(), *logits, strict=True):
                yield seen_among(_detections(*found[:3]), GROUNDS[int(found[3].argmax())])


def _detections(presence: Tensor, things: Tensor, colors: Tensor) -> list[Detection]:
    """The figures at the peaks of presence `[8, 8]`, at the mean place around each peak."""
    peaks = functional.max_pool2d(presence[None, None], 3, 1, 1)[0, 0]
    found = []
    for row, column in ((presence == peaks) & (presence > THRESHOLD)).nonzero().tolist():
        rows = slice(max(0, row - 1), row + 2)
        columns = slice(max(0, column - 1), column + 2)
        near = presence[rows, columns]
        ys = torch.arange(rows.start, rows.start + near.shape[0]) + 0.5
        xs = torch.arange(columns.start, columns.start + near.shape[1]) + 0.5
        found.append(
            Detection(
                THINGS[int(things[:, row, column].argmax())],
                COLOR_NAMES[int(colors[:, row, column].argmax())],
                float((near.sum(0) * xs).sum() / near.sum()) / CELLS,
                float((near.sum(1) * ys).sum() / near.sum()) / CELLS,
            )
        )
    return found


def seen_among(found: Sequence[Detection], ground: str) -> Seen:
    """The content of an image with these figures.

    The glyphs of an activity below a single animal are that activity, and no things of their own.
    """
    activity = _activity(found)
    figures = [one for one in found if activity is None or one.name in ANIMALS]
    relations: set[Relation] = set()
    for first, second in permutations(figures, 2):
        word = _relation(first, second)
        if word is not None:
            relations.add((first.name, word, second.name))
    return Seen(
        Counter(one.name for one in figures),
        frozenset((one.name, one.color) for one in figures if one.name in SHAPES),
        frozenset(relations),
        activity,
        ground,
    )


def _activity(found: Sequence[Detection]) -> str | None:
    """The activity of a single animal with exactly the glyphs of one below it."""
    animals = [one for one in found if one.name in ANIMALS]
    others = [one for one in found if one.name not in ANIMALS]
    if len(animals) != 1 or not others:
        return None
    if any(_relation(animals[0], other) == "left of" for other in others) and len(others) == 1:
        return None
    if any(other.y <= animals[0].y for other in others):
        return None
    names = {glyph: noun for noun, glyph in NOUNS.items()} | PROPS
    for activity, glyphs in ACTIVITIES.items():
        if Counter(other.name for other in others) == Counter(names[glyph] for glyph in glyphs):
            return activity
    return None


def _relation(first: Detection, second: Detection) -> str | None:
    """The position of the first figure relative to the second; None right of it."""
    right = second.x - first.x
    down = second.y - first.y
    if abs(right) >= abs(down):
        return "left of" if right > 0 else None
    return "on" if down > 0 else "under"


def load_detector(file: Path, device: str = "cpu") -> SceneDetector:
    """The detector with the weights of a file, in float32."""
    tensors, _ = load_tensors(file)
    model = SceneDetector()
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval().to(device)
