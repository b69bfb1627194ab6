"""The stored latents of pretraining: moments of the autoencoder's posterior, with captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from ddpo.io.tensors import load_tensors
from pretraining.tokenizer import LENGTH

__all__ = ["CAPTION_DROPOUT", "Latents", "load_latents", "stratified_shares", "token_ids"]

CAPTION_DROPOUT: Final = 0.1  # for classifier-free guidance, arXiv 2207.12598


@dataclass(frozen=True, slots=True)
class Latents:
    """Standardised posteriors of training images, and the images' captions.

    Args:
        means: Means, float32 `[images, 12, 8, 8]`.
        stds: Standard deviations of the same shape.
        captions: Captions of the images.
    """

    means: torch.Tensor
    stds: torch.Tensor
    captions: list[str]

    def draw(
        self, count: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows `[count]` of random images, samples of their posteriors, and standard noise."""
        rows = torch.from_numpy(rng.integers(len(self.means), size=count))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        means = self.means[rows]
        latents = means + self.stds[rows] * torch.randn(means.shape, generator=generator)
        return rows, latents, torch.randn(means.shape, generator=generator)


def load_latents(work: Path) -> Latents:
    """All stored latents of a work folder."""
    scale, _ = load_tensors(work / "latent-scale.safetensors")
    mean = scale["mean"].view(-1, 1, 1)
    std = scale["std"].view(-1, 1, 1)
    means = []
    stds = []
    captions = []
    for path in sorted(work.glob("latents-*.safetensors")):
        tensors, metadata = load_tensors(path)
        moments = tensors["moments"].float()
        means.append((moments[:, 0] - mean) / std)
        stds.append((0.5 * moments[:, 1]).exp() / std)
        captions += json.loads(metadata["captions"])
    return Latents(torch.cat(means), torch.cat(stds), captions)


def stratified_shares(
    count: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Shuffled numbers in [0, 1), one in each of `count` equal intervals."""
    return (rng.permutation(count) + rng.random(count)) / count


def kept_rows(rows: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Rows of token ids for images: 1 + the image's row, or 0, the empty text, for one in ten."""
    kept = torch.from_numpy(rng.random(len(rows)) >= CAPTION_DROPOUT)
    return torch.where(kept, rows + 1, 0)


def token_ids(folder: Path, texts: Sequence[str]) -> torch.Tensor:
    """The padded token ids of texts, int64 `[texts, 16]`, by the tokenizer of a folder."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder)
    encoded = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True)
    return torch.tensor(encoded.input_ids)
