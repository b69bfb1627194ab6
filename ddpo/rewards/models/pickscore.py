"""PickScore v1: a CLIP ViT-H/14 fine-tuned on which of two images people picked for a prompt."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.clip import CLIP_H14, PICKSCORE_V1
from ddpo.rewards.models.clip_pair import ClipPair
from ddpo.rewards.models.clip_pixels import preprocess
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["PickScore", "prepare"]


def prepare(image: Image.Image) -> Tensor:
    """The original's preprocessing, transformers' CLIP processor on Pillow.

    RGB image → float32 `[3, 224, 224]`.
    """
    return preprocess(image, math.floor)


class PickScore:
    """exp(logit scale) · cos(image, prompt), not divided: the scale that the authors publish.

    Args:
        clip: folder or hub id of the tuned CLIP model.
        processor: folder or hub id of the tokenizer.
        device: torch device of both encoders.
        dtype: precision of both encoders, "float32" or "bfloat16".

    Raises:
        MissingResourceError: Model or tokenizer is neither here nor downloadable, or incomplete.
        ConfigError: The dtype is not known, the model does not take images of 224×224, or its
            vocabulary is another.

    Source: Kirstain et al., arXiv 2305.01569, section 4, and the model card.
    """

    card = CARDS["pickscore"]

    def __init__(
        self,
        clip: str = PICKSCORE_V1.source,
        processor: str = CLIP_H14.source,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self._pair = ClipPair(self.card, clip, processor, device, dtype, math.floor)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; part `truncated` is 1 where the prompt was truncated."""
        if not len(batch):
            return RewardOutput(torch.zeros(0), {"truncated": torch.zeros(0)})
        cosines, truncated = self._pair.cosines(batch, [prompt.text for prompt in batch.prompts])
        return RewardOutput((self._pair.logit_scale * cosines).float(), {"truncated": truncated})
