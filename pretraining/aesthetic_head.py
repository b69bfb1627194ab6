"""The judge in the LAION head's format: `python -m pretraining.aesthetic_head --clip FOLDER …`.

One linear layer on the normalised image embedding of the judge in CLIP's format. It is a ridge
regression on a stated preference: a rendering that is sharp, clean, whole, well centred and of full
contrast has the rating 8, and each degradation lowers the rating in proportion to its strength,
down to 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpo.images import to_pil
from ddpo.io.tensors import save_tensors
from ddpo.rewards.models.clip_pixels import prepared
from pretraining.judge import blur
from pretraining.judge_training import JUDGES, say
from pretraining.scene_batches import to_tensor
from pretraining.scene_renderer import SceneRenderer
from pretraining.scene_sampling import random_scene

__all__ = ["BEST", "DEGRADATIONS", "WORST", "degraded", "embeddings", "fit_head", "rated_batch"]

BEST: Final = 8.0
WORST: Final = 2.0
RIDGE: Final = 1e-3
BATCH: Final = 64


def _blurred(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return blur(image[None], 0.3 + 3.2 * strength)[0]


def _noisy(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    return (image + 0.3 * strength * noise).clamp(0, 1)


def _cut(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """The image without a strip of one colour at a random edge."""
    width = round((0.15 + 0.5 * strength) * image.shape[-1])
    turns = int(rng.integers(4))
    turned = torch.rot90(image, turns, (1, 2)).clone()
    turned[:, :width] = image[:, 0, 0].view(3, 1, 1)
    return torch.rot90(turned, -turns, (1, 2))


def _shifted(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """The image moved towards a random edge, past which its content is lost."""
    pixels = round((0.12 + 0.4 * strength) * image.shape[-1])
    turns = int(rng.integers(4))
    turned = torch.rot90(image, turns, (1, 2))
    first = turned[:, :1].expand(-1, pixels, -1)
    return torch.rot90(torch.cat([first, turned[:, :-pixels]], 1), -turns, (1, 2))


def _faded(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return image + (0.15 + 0.75 * strength) * (image.mean() - image)


Degradation = Callable[[Tensor, float, np.random.Generator], Tensor]
DEGRADATIONS: Final[dict[str, Degradation]] = {
    "blurred": _blurred,
    "noisy": _noisy,
    "cut": _cut,
    "off-centre": _shifted,
    "faded": _faded,
}
"""Name → function of an image `[3, side, side]`, a strength in [0, 1] and a generator."""


def degraded(image: Tensor, name: str, strength: float, rng: np.random.Generator) -> Tensor:
    """The image `[3, side, side]` with one degradation of `DEGRADATIONS`."""
    return DEGRADATIONS[name](image, strength, rng)


def rated_batch(
    renderer: SceneRenderer, rng: np.random.Generator, count: int
) -> tuple[Tensor, Tensor]:
    """Renderings `[count, 3, 64, 64]`, four of five degraded, and their ratings `[count]`."""
    clean = to_tensor([renderer.draw_scene(random_scene(rng), rng) for _ in range(count)])
    names = list(DEGRADATIONS)
    images = []
    ratings = []
    for image in clean:
        if rng.random() < 0.2:
            images.append(image)
            ratings.append(BEST)
            continue
        strength = float(rng.random())
        images.append(degraded(image, names[int(rng.integers(len(names)))], strength, rng))
        ratings.append(BEST - (BEST - WORST) * (0.25 + 0.75 * strength))
    return torch.stack(images), torch.tensor(ratings)


@torch.no_grad()
def embeddings(model: Any, images: list[Image.Image]) -> Tensor:
    """The normalised embeddings of images by a `CLIPModel`, float64 `[images, width]`."""
    parts = [
        model.visual_projection(
            model.vision_model(pixel_values=prepared(images[start : start + BATCH])).pooler_output
        )
        for start in range(0, len(images), BATCH)
    ]
    return torch.nn.functional.normalize(torch.cat(parts).double(), dim=-1)


def fit_head(features: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
    """The ridge regression of ratings `[count]` on features `[count, width]`.

    Returns:
        The layer's weight float32 `[1, width]` and bias float32 `[1]`.
    """
    center = features.mean(0)
    level = ratings.double().mean()
    spread = features - center
    gram = spread.T @ spread / len(features)
    gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weight = torch.linalg.solve(gram, spread.T @ (ratings.double() - level) / len(features))
    return weight[None].float(), (level - weight @ center)[None].float()


def main() -> None:
    """Runs the command line."""
    from transformers import CLIPModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the head")
    parser.add_argument("--clip", type=Path, required=True, help="folder of the judge's CLIP")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--font", type=Path, default=None)
    given = parser.parse_args()
    model = CLIPModel.from_pretrained(given.clip, dtype=torch.float32).eval()
    renderer = SceneRenderer(given.font)
    features = []
    ratings = []
    for start in range(0, given.images, BATCH):
        rng = np.random.default_rng([given.seed, JUDGES["aesthetic_head"], start])
        images, rated = rated_batch(renderer, rng, BATCH)
        features.append(embeddings(model, to_pil(images)))
        ratings.append(rated)
    weight, bias = fit_head(torch.cat(features), torch.cat(ratings))
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "head.safetensors"
    save_tensors(path, {"weight": weight, "bias": bias})
    say(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
