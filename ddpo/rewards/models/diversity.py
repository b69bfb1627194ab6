"""Diversity of the images of a prompt as the mean of a distance over all pairs: LPIPS, or cosine distance of DINOv2 class tokens."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddpo.devices import in_float64
from ddpo.errors import ConfigError
from ddpo.rewards.cache import image_digests
from ddpo.rewards.cards.diversity import DINOV2, DIVERSITY_CARDS
from ddpo.rewards.groups import judge_groups
from ddpo.rewards.models.dino import dino_encoder
from ddpo.rewards.models.lpips import load_lpips, lpips_distances, lpips_features, lpips_inputs
from ddpo.types import ImageBatch, RewardOutput

__all__ = [
    "DiversityDino",
    "DiversityLpips",
    "cosine_distances",
    "mean_pairwise",
    "mean_to_others",
    "unit_rows",
]

SMALLEST: Final = 32  # pixels; below it AlexNet's third layer has no place left
AT_ONCE: Final = 8  # images


def unit_rows(features: Tensor) -> Tensor:
    """Features of length 1. A row of zeros, which has no direction, points along an axis of its own: such rows are alike and like no other.

    Args:
        features: `[n, width]`.

    Returns:
        float64 `[n, width + 1]`.
    """
    rows = normalize(in_float64(features), dim=1)
    return torch.cat([rows, (rows == 0).all(1, keepdim=True).double()], 1)


def cosine_distances(features: Tensor) -> Tensor:
    """1 - cosine of every two rows: 0 … 2, by ½|a - b|² of unit vectors, so that close ones are exact. `[n, width]` → float64 `[n, n]`."""
    rows = unit_rows(features)
    return torch.stack([(rows - row).square().sum(1) / 2 for row in rows])


def mean_to_others(distances: Tensor) -> Tensor:
    """The mean distance of each image to the others. `[n, n]`, symmetric with a diagonal of zeros, n > 1 → `[n]`."""
    return distances.sum(1) / (len(distances) - 1)


def mean_pairwise(distances: Tensor) -> float:
    """The mean over all n(n - 1)/2 pairs, whose expectation does not depend on n. `[n, n]` as in `mean_to_others`."""
    return float(mean_to_others(distances).mean())


class DiversityLpips:
    """Mean pairwise LPIPS of the images of a prompt. Part `to_others`: the mean of an image's own pairs; `n`: images of the prompt.

    Args:
        alexnet: local copy of torchvision's AlexNet, else it is fetched.
        linear: local copy of LPIPS' layer weights, else they are fetched.
        side: pixels to which images of another size are resized.
        device: where AlexNet runs.

    Raises:
        ConfigError: a side below 32.
        MissingResourceError: weights are missing.
    """

    card = DIVERSITY_CARDS["diversity_lpips"]

    def __init__(
        self,
        alexnet: str | None = None,
        linear: str | None = None,
        side: int = 256,
        device: str = "cpu",
    ) -> None:
        if side < SMALLEST:
            raise ConfigError(
                f"reward {self.card.id!r}: side must be at least {SMALLEST}, got {side}"
            )
        self._side, self._device = side, torch.device(device)
        self._model = load_lpips(alexnet, linear, self.card.id).to(self._device)

    def features(self, batch: ImageBatch) -> Tensor:
        """Vectors whose squared distance is LPIPS, float32 `[batch, width]`; of one image or more, equal ones made once."""
        first: dict[bytes, int] = {}
        digests = image_digests(batch, exact=False)
        for place, digest in enumerate(digests):
            first.setdefault(digest, place)
        images = batch.images
        made = []
        with torch.no_grad():
            for start in range(0, len(first), AT_ONCE):
                some = list(first.values())[start : start + AT_ONCE]
                inputs = torch.stack([lpips_inputs(images[place], self._side) for place in some])
                made.append(lpips_features(self._model, inputs.to(self._device)))
        row = {digest: index for index, digest in enumerate(first)}
        return torch.cat(made)[[row[digest] for digest in digests]]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`, a group at a time."""

        def judge(places: list[int]) -> tuple[float, Tensor]:
            distances = lpips_distances(self.features(batch.take(places)))
            return mean_pairwise(distances), mean_to_others(distances)

        return judge_groups(batch.prompts, "to_others", judge)


class DiversityDino:
    """Mean pairwise cosine distance of the DINOv2 class tokens of the images of a prompt; parts as in `DiversityLpips`.

    Args:
        dino: folder or hub id of the model.
        device: where it runs.

    Raises:
        MissingResourceError: weights are missing.
    """

    card = DIVERSITY_CARDS["diversity_dino"]

    def __init__(self, dino: str = DINOV2.source, device: str = "cpu") -> None:
        self._encoder = dino_encoder(self.card, dino, device)

    def features(self, batch: ImageBatch) -> Tensor:
        """Class tokens float32 `[batch, width]` of one image or more."""
        return self._encoder.embed(batch).float().cpu()

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        features = self.features(batch) if len(batch) else torch.zeros(0, 1)

        def judge(places: list[int]) -> tuple[float, Tensor]:
            distances = cosine_distances(features[places])
            return mean_pairwise(distances), mean_to_others(distances)

        return judge_groups(batch.prompts, "to_others", judge)
