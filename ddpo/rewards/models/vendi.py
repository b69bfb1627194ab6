"""The Vendi score: the effective number of different images among those of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpo.devices import in_float64
from ddpo.errors import ConfigError
from ddpo.rewards.cards.diversity import DINOV2, DIVERSITY_CARDS
from ddpo.rewards.groups import judge_groups
from ddpo.rewards.models.dino import dino_encoder
from ddpo.rewards.models.diversity import unit_rows
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Vendi", "cosine_kernel", "pixel_features", "vendi_gains", "vendi_score"]

THUMBNAIL: Final = 32  # pixels
MOST_GAINS: Final = 256
LARGEST_ORDER: Final = 1e6  # higher orders differ from infinity by less than their rounding
"""Greatest group with gains, which take n eigenvalue problems of size n - 1."""


def cosine_kernel(features: Tensor) -> Tensor:
    """The cosine of every two rows, zeros as in `unit_rows`. `[n, width]` → float64 `[n, n]`."""
    rows = unit_rows(features)
    return rows @ rows.T


def vendi_score(kernel: Tensor, order: float = 1.0) -> float:
    """exp(-Σ λ ln λ) over the eigenvalues λ of K/n, or of order q, (Σ λ^q)^(1/(1-q)).

    It is 1 if all are alike, and n if no two have anything in common.

    Args:
        kernel: similarities K `[n, n]`, n > 0, symmetric and positive semidefinite with 1 on the
            diagonal.
        order: order q ≥ 0. The higher, the less rare kinds count; 0 counts kinds, infinity gives
            1 / the largest λ.

    Source: D. Friedman, A. B. Dieng, "The Vendi Score", TMLR 2023, arXiv 2210.02410; orders: A. P.
    Pasarkar, A. B. Dieng, "Cousins of the Vendi Score", AISTATS 2024, arXiv 2310.12952.
    """
    n = len(kernel)
    shares = torch.linalg.eigvalsh(in_float64(kernel) / n)
    # the others are rounding errors, which a low order would count
    shares = shares[shares > n * torch.finfo(torch.float64).eps]
    if order == 1:
        return float(torch.exp(-(shares * shares.log()).sum()))
    if order > LARGEST_ORDER:
        return float(1 / shares.max())
    powers = shares.pow(order).sum()
    if powers == 0:  # below the smallest float64
        return float(torch.exp(torch.logsumexp(order * shares.log(), 0) / (1 - order)))
    return float(powers.pow(1 / (1 - order)))


def vendi_gains(kernel: Tensor, order: float = 1.0) -> Tensor:
    """Gain of each image, float64 `[n]`: the score of all minus the score of the others.

    Arguments as in `vendi_score`, with n > 1.
    """
    n = len(kernel)
    whole = vendi_score(kernel, order)
    others = [[place for place in range(n) if place != left_out] for left_out in range(n)]
    return torch.tensor(
        [whole - vendi_score(kernel[rows][:, rows], order) for rows in others], dtype=torch.float64
    )


def pixel_features(batch: ImageBatch) -> Tensor:
    """RGB thumbnails of 32×32, PIL bicubic, in [0, 1]: float32 `[batch, 3072]`."""
    size = THUMBNAIL, THUMBNAIL
    thumbnails = [
        np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
        for image in batch.images
    ]
    return torch.from_numpy(np.stack(thumbnails)).flatten(1)


class Vendi:
    """Effective number of different images of a prompt.

    Part `gain` is the contribution of one image, part `n` the number of images.

    Args:
        features: compared features, "dinov2" class tokens or "pixels" of thumbnails; pixels need no
            weights.
        order: order of the entropy; 1 is the score as first published.
        dino: folder or hub id of the model.
        device: torch device of the model.

    Raises:
        ConfigError: The features are not known, or the order is negative.
        MissingResourceError: Weights are missing.
    """

    card = DIVERSITY_CARDS["vendi"]

    def __init__(
        self,
        features: str = "dinov2",
        order: float = 1.0,
        dino: str = DINOV2.source,
        device: str = "cpu",
    ) -> None:
        if features not in ("dinov2", "pixels"):
            raise ConfigError(
                f"reward {self.card.id!r}: features is {features!r}, not one of dinov2, pixels"
            )
        if not order >= 0:
            raise ConfigError(f"reward {self.card.id!r}: order must be at least 0, got {order:g}")
        self._order = order
        self._features: Callable[[ImageBatch], Tensor] = (
            pixel_features if features == "pixels" else dino_encoder(self.card, dino, device).embed
        )

    def features(self, batch: ImageBatch) -> Tensor:
        """Features float32 `[batch, width]` of at least one image."""
        return self._features(batch).float().cpu()

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; `gain` is NaN in groups of over 256 images, where it takes too long."""
        features = self.features(batch) if len(batch) else torch.zeros(0, 1)

        def judge(places: list[int]) -> tuple[float, Tensor]:
            kernel = cosine_kernel(features[places])
            few = len(places) <= MOST_GAINS
            gains = (
                vendi_gains(kernel, self._order) if few else torch.full((len(places),), torch.nan)
            )
            return vendi_score(kernel, self._order), gains

        return judge_groups(batch.prompts, "gain", judge)
