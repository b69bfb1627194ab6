"""Augmentations of renderings for judges: what a sample of a small model may look like, and worse.

All are random, keyed by a numpy generator, and keep the truth of a caption; `without_color` of
`pretraining.judge` does not keep the truth of its colours.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ddpo.images import floats_of, to_pil
from ddpo.rewards.vlm import jpeg80
from pretraining.judge import blur

__all__ = [
    "Autoencoder",
    "compressed",
    "erased",
    "glyph_recolor",
    "moved",
    "noisy",
    "random_maps",
    "softened",
    "warped",
]

GREY_SHARE: Final = 0.3


def glyph_recolor(rng: np.random.Generator, share: float) -> Any:
    """A change of the colours of all glyphs of an image, or None with probability 1 - `share`.

    The glyphs become grey, or their hue turns by one random angle. Grounds and simple objects keep
    their colours, so a caption stays true.
    """
    if rng.random() >= share:
        return None
    grey = rng.random() < GREY_SHARE
    turn = int(rng.integers(20, 236))

    def recolor(glyph: Image.Image) -> Image.Image:
        alpha = glyph.getchannel("A")
        rgb = glyph.convert("RGB")
        if grey:
            changed = rgb.convert("L").convert("RGB")
        else:
            hue, saturation, value = rgb.convert("HSV").split()
            turned = hue.point([(level + turn) % 256 for level in range(256)])
            changed = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
        changed.putalpha(alpha)
        return changed

    return recolor


def random_maps(
    rng: np.random.Generator, count: int, shift: float, scale: float
) -> NDArray[np.float32]:
    """Random shifts and scales as affine maps `[count, 2, 3]`, from places of the result.

    Places run from -1 to 1 along each axis, as those of `torch.nn.functional.affine_grid`.

    Args:
        rng: Generator.
        count: Number of maps.
        shift: Greatest shift along each axis, in shares of the side.
        scale: Greatest relative change of size.
    """
    zoom = 1 + scale * (2 * rng.random(count) - 1)
    offsets = 2 * shift * (2 * rng.random((count, 2)) - 1)
    maps = np.zeros((count, 2, 3), dtype=np.float32)
    maps[:, 0, 0] = zoom
    maps[:, 1, 1] = zoom
    maps[:, :, 2] = offsets
    return maps


def warped(pixels: Tensor, maps: NDArray[np.float32]) -> Tensor:
    """Each image `[batch, 3, height, width]` under its map, edges repeated."""
    grid = functional.affine_grid(torch.from_numpy(maps), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def moved(pixels: Tensor, rng: np.random.Generator, shift: float, scale: float) -> Tensor:
    """Each image `[batch, 3, height, width]` under one of `random_maps`."""
    return warped(pixels, random_maps(rng, len(pixels), shift, scale))


def softened(pixels: Tensor, rng: np.random.Generator, share: float, most: float) -> Tensor:
    """Images of which a share is blurred by up to `most` pixels, in four groups."""
    result = pixels.clone()
    groups = torch.from_numpy(rng.permutation(len(pixels))).chunk(4)
    for group in groups:
        chosen = group[torch.from_numpy(rng.random(len(group)) < share)]
        if len(chosen):
            result[chosen] = blur(pixels[chosen], 0.2 + (most - 0.2) * float(rng.random()))
    return result


def noisy(pixels: Tensor, rng: np.random.Generator, most: float) -> Tensor:
    """Images with Gaussian noise of a random level up to `most` each, in [0, 1]."""
    levels = torch.from_numpy((most * rng.random(len(pixels)) ** 2).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(tuple(pixels.shape), dtype=np.float32))
    return (pixels + levels.view(-1, 1, 1, 1) * noise).clamp(0, 1)


def erased(pixels: Tensor, rng: np.random.Generator, share: float, part: float) -> Tensor:
    """Images of which a share has a square of relative side `part` in one random colour."""
    result = pixels.clone()
    side = round(part * pixels.shape[-1])
    for image in result:
        if rng.random() < share:
            top, left = (int(v) for v in rng.integers(pixels.shape[-1] - side + 1, size=2))
            color = torch.from_numpy(rng.random((3, 1, 1), dtype=np.float32))
            image[:, top : top + side, left : left + side] = color
    return result


def compressed(pixels: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """Images of which a share passed JPEG of quality 80, as on their way to a captioner."""
    result = pixels.clone()
    for index, image in enumerate(to_pil(pixels)):
        if rng.random() < share:
            result[index] = floats_of([jpeg80(image)])[0]
    return result


class Autoencoder:
    """An embedded model's autoencoder, whose reconstructions have its typical artefacts.

    Args:
        model: Name or folder of the model.
    """

    def __init__(self, model: str = "emoji") -> None:
        from diffusers import AutoencoderKL

        from ddpo.policies import model_folder

        folder = model_folder(model) / "vae"
        self._vae: Any = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def rebuild(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Reconstructions in [0, 1] of images `[batch, 3, 64, 64]`.

        Args:
            pixels: Images in [0, 1].
            noise: Values that are added to the standardised latents `[batch, 12, 8, 8]`.
        """
        latents = self._vae.encode(pixels * 2 - 1).latent_dist.mean
        if noise is not None:
            latents = latents + noise
        decoded: Tensor = self._vae.decode(latents).sample
        return ((decoded + 1) / 2).clamp(0, 1)
