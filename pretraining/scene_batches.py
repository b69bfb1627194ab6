"""Batches of augmented renderings of random scenes, and the sentences that name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ddpo.io.tensors import load_tensors, save_tensors
from ddpo.rewards.scenes.grammar import Scene, caption, scene_of
from pretraining.augmentation import (
    Autoencoder,
    compressed,
    erased,
    glyph_recolor,
    moved,
    noisy,
    softened,
)
from pretraining.scene_renderer import SceneImage, SceneRenderer
from pretraining.scene_sampling import random_scene

__all__ = ["SENTENCES", "Augmentation", "Reconstructions", "draw_batch", "to_tensor"]

BANK_BATCH: Final = 64
BANK_KEY: Final = 10  # apart from the keys of the judges

SENTENCES: Final = ("{}", "a photo depicts {}", "the image contains {}", "a picture of {}")
"""Sentences around a caption, among them those of `clip_score` and `alignment`."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The strengths of the random augmentations of a batch.

    Args:
        recolored: Share of images whose glyphs are grey or have another hue.
        shift: Greatest shift, in shares of the side.
        scale: Greatest relative change of size.
        blurred: Share of blurred images.
        blur: Greatest blur in pixels.
        noise: Greatest level of pixel noise.
        erased: Share of images with a coloured square.
        rebuilt: Share of images that pass the autoencoder.
        latent_noise: Greatest level of noise in the autoencoder's latents.
        jpeg: Share of images that pass JPEG of quality 80.
    """

    recolored: float = 0.35
    shift: float = 0.05
    scale: float = 0.10
    blurred: float = 0.4
    blur: float = 2.0
    noise: float = 0.12
    erased: float = 0.0
    rebuilt: float = 0.125
    latent_noise: float = 0.5
    jpeg: float = 0.0


class Reconstructions:
    """A bank of renderings that passed the autoencoder, kept in a file, since it is slow.

    Args:
        file: Path of the bank, which is made if it is missing or was made otherwise.
        renderer: Renderer of the scenes.
        count: Number of images.
        seed: Seed of scenes and noise.
        augmentation: Share of recoloured glyphs, and greatest noise of the latents.
    """

    def __init__(
        self,
        file: Path,
        renderer: SceneRenderer,
        count: int,
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        strengths = f"{augmentation.recolored} {augmentation.latent_noise}"
        made = {"count": str(count), "seed": str(seed), "strengths": strengths}
        if file.exists():
            tensors, metadata = load_tensors(file)
            if {name: metadata.get(name) for name in made} == made:
                self._levels = tensors["levels"]
                self._scenes = [scene_of(text) for text in json.loads(metadata["captions"])]
                return
        self._levels, self._scenes = _rebuilt(renderer, count, seed, augmentation)
        captions = json.dumps([caption(scene) for scene in self._scenes])
        save_tensors(file, {"levels": self._levels}, {**made, "captions": captions})

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tensor, list[Scene]]:
        """Random images `[count, 3, 64, 64]` in [0, 1] of the bank, and their complete scenes."""
        chosen = rng.integers(len(self._scenes), size=count)
        pixels = self._levels[torch.from_numpy(chosen)].float() / 255
        return pixels, [self._scenes[index] for index in chosen]


def _rebuilt(
    renderer: SceneRenderer, count: int, seed: int, augmentation: Augmentation
) -> tuple[Tensor, list[Scene]]:
    autoencoder = Autoencoder()
    parts = []
    scenes: list[Scene] = []
    for start in range(0, count, BANK_BATCH):
        rng = np.random.default_rng([seed, BANK_KEY, start])
        some = min(BANK_BATCH, count - start)
        drawn = _drawn(renderer, rng, some, augmentation)
        levels = (augmentation.latent_noise * rng.random((some, 1, 1, 1)) ** 2).astype(np.float32)
        noise = levels * rng.standard_normal((some, 12, 8, 8), dtype=np.float32)
        rebuilt = autoencoder.rebuild(to_tensor(drawn), torch.from_numpy(noise))
        parts.append((rebuilt * 255).round().to(torch.uint8))
        scenes += [image.shown for image in drawn]
    return torch.cat(parts), scenes


def _drawn(
    renderer: SceneRenderer, rng: np.random.Generator, count: int, augmentation: Augmentation
) -> list[SceneImage]:
    return [
        renderer.draw_scene(random_scene(rng), rng, glyph_recolor(rng, augmentation.recolored))
        for _ in range(count)
    ]


def draw_batch(
    renderer: SceneRenderer,
    rng: np.random.Generator,
    count: int,
    augmentation: Augmentation,
    bank: Reconstructions | None,
) -> tuple[Tensor, list[Scene]]:
    """Augmented renderings `[count, 3, 64, 64]` in [0, 1], and the complete scene of each.

    Args:
        renderer: Renderer of the scenes.
        rng: Generator of scenes and augmentations.
        count: Number of images.
        augmentation: Strengths of the augmentations.
        bank: Reconstructions, of which some images of the batch are; None for none.
    """
    rebuilt = 0 if bank is None else round(augmentation.rebuilt * count)
    drawn = _drawn(renderer, rng, count - rebuilt, augmentation)
    pixels = to_tensor(drawn)
    scenes = [image.shown for image in drawn]
    if bank is not None:
        others, other_scenes = bank.sample(rng, rebuilt)
        pixels = torch.cat([pixels, others])
        scenes += other_scenes
    pixels = moved(pixels, rng, augmentation.shift, augmentation.scale)
    pixels = softened(pixels, rng, augmentation.blurred, augmentation.blur)
    pixels = erased(pixels, rng, augmentation.erased, 0.3)
    pixels = noisy(pixels, rng, augmentation.noise)
    return compressed(pixels, rng, augmentation.jpeg), scenes


def to_tensor(drawn: Sequence[SceneImage]) -> Tensor:
    """The pixels of renderings, float32 `[batch, 3, height, width]` in [0, 1]."""
    levels = torch.from_numpy(np.stack([image.pixels for image in drawn]))
    return levels.permute(0, 3, 1, 2).float() / 255
