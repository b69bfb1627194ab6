"""Diversity of the images of a prompt: mean pairwise LPIPS, or cosine distance of DINOv2 tokens."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddpo.devices import in_float64
from ddpo.ranges import Range
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

SIDE: Final = Range(low=32, high=4096, whole=True)
"""Width and height of AlexNet's input in pixels; below it the third layer has no position left."""
AT_ONCE: Final = 8  # images


def unit_rows(features: Tensor) -> Tensor:
    """Features of length 1, as rows.

    A row of zeros, which has no direction, gets an axis of its own: such rows equal each other and
    are orthogonal to all others.

    Args:
        features: features `[n, width]`.

    Returns:
        float64 `[n, width + 1]`.
    """
    rows = normalize(in_float64(features), dim=1)
    return torch.cat([rows, (rows == 0).all(1, keepdim=True).double()], 1)


def cosine_distances(features: Tensor) -> Tensor:
    """1 - cosine of every two rows, 0 … 2: `[n, width]` → float64 `[n, n]`.

    Computed as ½|a - b|² of unit vectors, which is exact for close ones.
    """
    rows = unit_rows(features)
    return torch.stack([(rows - row).square().sum(1) / 2 for row in rows])


def mean_to_others(distances: Tensor) -> Tensor:
    """The mean distance of each image to the others.

    Args:
        distances: `[n, n]` with n > 1, symmetric, with a diagonal of zeros.
    """
    return distances.sum(1) / (len(distances) - 1)


def mean_pairwise(distances: Tensor) -> float:
    """The mean over all n(n - 1)/2 pairs, whose expectation does not depend on n."""
    return float(mean_to_others(distances).mean())


class DiversityLpips:
    """Mean pairwise LPIPS of the images of a prompt.

    Part `to_others` is the mean over the pairs of one image, part `n` the number of images.

    Args:
        alexnet: path of a local copy of torchvision's AlexNet; None to fetch it.
        linear: path of a local copy of LPIPS' layer weights; None to fetch them.
        side: side in pixels to which images of another size are resized.
        device: torch device of AlexNet.

    Raises:
        ConfigError: The side is below 32.
        MissingResourceError: Weights are missing.
    """

    card = DIVERSITY_CARDS["diversity_lpips"]

    def __init__(
        self,
        alexnet: str | None = None,
        linear: str | None = None,
        side: int = 256,
        device: str = "cpu",
    ) -> None:
        self._side = int(SIDE.checked(f"reward {self.card.id!r}: side", side))
        self._device = torch.device(device)
        self._model = load_lpips(alexnet, linear, self.card.id).to(self._device)

    def features(self, batch: ImageBatch) -> Tensor:
        """Vectors float32 `[batch, width]` of at least one image, whose squared distance is LPIPS.

        Equal images are computed once.
        """
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
    """Mean pairwise cosine distance of DINOv2 class tokens; parts as in `DiversityLpips`.

    Args:
        dino: folder or hub id of the model.
        device: torch device of the model.

    Raises:
        MissingResourceError: Weights are missing.
    """

    card = DIVERSITY_CARDS["diversity_dino"]

    def __init__(self, dino: str = DINOV2.source, device: str = "cpu") -> None:
        self._encoder = dino_encoder(self.card, dino, device)

    def features(self, batch: ImageBatch) -> Tensor:
        """Class tokens float32 `[batch, width]` of at least one image."""
        return self._encoder.embed(batch).float().cpu()

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        features = self.features(batch) if len(batch) else torch.zeros(0, 1)

        def judge(places: list[int]) -> tuple[float, Tensor]:
            distances = cosine_distances(features[places])
            return mean_pairwise(distances), mean_to_others(distances)

        return judge_groups(batch.prompts, "to_others", judge)
