"""The detector of scenes: `python -m pretraining.scene_detector --out FOLDER --minutes N`.

A convolutional network of `ddpo.rewards.models.scene_detector`, trained on renderings alone: on
scenes of the world, and on figures at random places. It sees no reconstruction, no sample of a
model and no answer of another judge. Augmentation and the keys of its data are its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as natural_numbers
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ddpo.io.tensors import save_tensors
from ddpo.rewards.models.scene_detector import CELLS, PROPS, THINGS, SceneDetector
from ddpo.rewards.scenes.grammar import GROUNDS, SHAPES, Figure
from ddpo.rewards.scenes.world import COLORS, NOUNS
from pretraining.augmentation import glyph_recolor, noisy, random_maps, softened, warped
from pretraining.judge_training import JudgeRun, arguments, half, say, train
from pretraining.render import SIZE, Pixels
from pretraining.scene_batches import Augmentation
from pretraining.scene_renderer import SceneRenderer, Spot, completed, layout
from pretraining.scene_sampling import random_scene

__all__ = ["Detecting", "Target", "train_detector"]

AUGMENTATION: Final = Augmentation(
    recolored=0.35, shift=0.06, scale=0.12, blurred=0.5, noise=0.12, rebuilt=0.0
)
FREE: Final = 0.35
"""Share of images with figures at random places."""
MOST: Final = 5
NEAREST: Final = 0.36
"""Least distance of two free figures, in shares of the side."""
WIDTH: Final = 0.75
"""Standard deviation of the target of presence around a centre, in cells."""
RATES: Final = (2.5e-3, 2e-3)
PRESENCE_WEIGHT: Final = 8.0
CLASSES: Final = {name: index for index, name in enumerate(THINGS)}
COLOR_PLACES: Final = {name: index for index, name in enumerate(COLORS)}
GLYPH_NAMES: Final = {glyph: noun for noun, glyph in NOUNS.items()} | PROPS
NO_COLOR: Final = -100


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of a rendering: its class, its colour or `NO_COLOR`, and its centre."""

    thing: int
    color: int
    x: float  # shares of the side
    y: float


def _target(content: Figure | str, spot: Spot) -> Target:
    if isinstance(content, str):
        return Target(CLASSES[GLYPH_NAMES[content]], NO_COLOR, spot.x, spot.y)
    color = NO_COLOR if content.color is None else COLOR_PLACES[content.color]
    return Target(CLASSES[content.noun], color, spot.x, spot.y)


def free_places(rng: np.random.Generator) -> list[tuple[Figure, Spot]]:
    """One to five random figures at random places, no two of them close together."""
    wanted = int(rng.integers(1, MOST + 1))
    side = float(rng.uniform(0.36, 0.9 if wanted == 1 else 0.5))
    margin = side / 2 - 0.03
    same = rng.random() < 0.3
    places: list[tuple[Figure, Spot]] = []
    for attempt in natural_numbers():
        if len(places) == wanted or attempt == 12 * wanted:
            return places
        x, y = (float(value) for value in rng.uniform(margin, 1 - margin, size=2))
        if any(np.hypot(x - spot.x, y - spot.y) < NEAREST for _, spot in places):
            continue
        figure = places[0][0] if places and same else _random_figure(rng)
        places.append((figure, Spot(x, y, side)))
    return places


def _random_figure(rng: np.random.Generator) -> Figure:
    if rng.random() < 0.3:
        colors = list(COLORS)
        return Figure(
            SHAPES[int(rng.integers(len(SHAPES)))], colors[int(rng.integers(len(colors)))]
        )
    nouns = list(NOUNS)
    return Figure(nouns[int(rng.integers(len(nouns)))])


class Detecting:
    """The loss of a batch of augmented renderings with the places of their figures."""

    def __init__(self, model: SceneDetector, renderer: SceneRenderer) -> None:
        self.model = model
        self.renderer = renderer

    def __call__(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """The loss, and the share of figures whose class is the likeliest at their cell."""
        drawn = [self._drawn(rng) for _ in range(count)]
        levels = torch.from_numpy(np.stack([pixels for pixels, _, _ in drawn]))
        pixels = levels.permute(0, 3, 1, 2).float() / 255
        maps = random_maps(rng, count, AUGMENTATION.shift, AUGMENTATION.scale)
        pixels = warped(pixels, maps)
        pixels = softened(pixels, rng, AUGMENTATION.blurred, AUGMENTATION.blur)
        pixels = noisy(pixels, rng, AUGMENTATION.noise)
        targets = [_mapped(found, each) for (_, found, _), each in zip(drawn, maps, strict=True)]
        grounds = torch.tensor([GROUNDS.index(ground) for _, _, ground in drawn])
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(pixels.contiguous(memory_format=torch.channels_last))
        presence, things, colors, ground = (part.float() for part in logits)
        near, owner = _cells(targets)
        flat = [figure for figures in targets for figure in figures]
        classes = torch.tensor([figure.thing for figure in flat])[owner]
        hues = torch.tensor([figure.color for figure in flat])[owner]
        inner = near > 0.5
        named = things.permute(0, 2, 3, 1)[inner]
        tinted = colors.permute(0, 2, 3, 1)[inner]
        losses = (
            PRESENCE_WEIGHT * functional.binary_cross_entropy_with_logits(presence, near),
            functional.cross_entropy(named, classes[inner]),
            functional.cross_entropy(tinted, hues[inner], ignore_index=NO_COLOR),
            functional.cross_entropy(ground, grounds),
        )
        right = (named.argmax(1) == classes[inner]).float().mean()
        return {"loss": torch.stack(losses).sum(), "presence": losses[0], "named": right}

    def _drawn(self, rng: np.random.Generator) -> tuple[Pixels, list[Target], str]:
        """A rendering, its figures, and its ground."""
        recolor = glyph_recolor(rng, AUGMENTATION.recolored)
        if rng.random() < FREE:
            ground = GROUNDS[int(rng.integers(len(GROUNDS)))]
            free = [(f, s) for f, s in free_places(rng) if f.color is None or f.color != ground]
            places: list[tuple[Figure | str, Spot]] = [*free]
        else:
            scene = completed(random_scene(rng), rng)
            ground = scene.ground or GROUNDS[0]
            places = layout(scene, SIZE)
        pixels = self.renderer.draw_layout(places, ground, rng, recolor)
        return pixels, [_target(content, spot) for content, spot in places], ground


def _mapped(figures: list[Target], each: NDArray[np.float32]) -> list[Target]:
    """The figures at their places after `warped`, whose map leads from the result back."""
    places = []
    for figure in figures:
        x = ((2 * figure.x - 1 - each[0, 2]) / each[0, 0] + 1) / 2
        y = ((2 * figure.y - 1 - each[1, 2]) / each[1, 1] + 1) / 2
        places.append(Target(figure.thing, figure.color, float(x), float(y)))
    return places


def _cells(targets: list[list[Target]]) -> tuple[Tensor, Tensor]:
    """Targets of presence, and the figure nearest to each cell.

    Args:
        targets: Figures of each image.

    Returns:
        Values in [0, 1] `[batch, 8, 8]`, and indices into all figures `[batch, 8, 8]`.
    """
    centers = (torch.arange(CELLS) + 0.5) / CELLS
    near = torch.zeros(len(targets), CELLS, CELLS)
    owner = torch.zeros(len(targets), CELLS, CELLS, dtype=torch.long)
    start = 0
    for row, figures in enumerate(targets):
        if figures:
            x = torch.tensor([figure.x for figure in figures])[:, None, None]
            y = torch.tensor([figure.y for figure in figures])[:, None, None]
            squares = (centers[None, None] - x) ** 2 + (centers[None, :, None] - y) ** 2
            least, index = squares.min(0)
            near[row] = torch.exp(-least * CELLS**2 / (2 * WIDTH**2))
            owner[row] = start + index
        start += len(figures)
    return near, owner


def train_detector(run: JudgeRun) -> list[float]:
    """Trains and writes the detector to `run.out / "judge"`; returns the losses."""
    torch.manual_seed(run.seed)
    model = SceneDetector().to(memory_format=torch.channels_last)
    losses = train(
        run, nn.ModuleDict({"detector": model}), Detecting(model, SceneRenderer(run.font)), RATES
    )
    file = run.out / "judge" / "model.safetensors"
    file.parent.mkdir(exist_ok=True)
    weights = half(model).state_dict()
    save_tensors(file, {name: tensor.contiguous() for name, tensor in weights.items()})
    say(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
    return losses


if __name__ == "__main__":
    train_detector(arguments("scene_detector", __doc__, steps=3000, batch=96))
