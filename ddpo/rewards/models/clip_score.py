"""CLIPScore without a reference: the scaled cosine of image and prompt in CLIP ViT-B/32."""

from __future__ import annotations

from typing import Final

import torch

from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.clip import CLIP_B32
from ddpo.rewards.models.clip_pair import ClipPair
from ddpo.rewards.models.clip_words import openai_reader
from ddpo.rewards.models.embedded_judges import judge_folder
from ddpo.rewards.scoring.user_reward import card_for
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["ClipScore"]

PREFIX: Final = "A photo depicts "
WEIGHT: Final = 2.5
"""Source of both: Hessel et al., arXiv 2104.08718, section 3."""


class ClipScore:
    """2.5 · max(cos(image, "A photo depicts PROMPT"), 0) in float32; float16 in the paper.

    The text is cleaned as in OpenAI's package, on which the original runs.

    Args:
        clip: folder or hub id of the CLIP model with its tokenizer.
        device: torch device of both encoders.
        dtype: precision of both encoders, "float32" or "bfloat16".
        model: "emoji" for the embedded CLIP; None for `clip`.

    Raises:
        MissingResourceError: The model is neither here nor downloadable, or is incomplete.
        ConfigError: The dtype or model is not known, or the model does not take images of 224×224.
    """

    card = CARDS["clip_score"]

    def __init__(
        self,
        clip: str = CLIP_B32.source,
        device: str = "cpu",
        dtype: str = "float32",
        model: str | None = None,
    ) -> None:
        options = {"clip": clip, "device": device, "dtype": dtype, "model": model}
        self.card = card_for(self.card, options, "ddpo")
        backbone = ""
        if model is not None:
            clip = str(judge_folder("dual_encoder"))
            backbone = self.card.backbone
        self._pair = ClipPair(
            self.card, clip, clip, device, dtype, reader=openai_reader, backbone=backbone
        )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; part `truncated` is 1 where the prompt was truncated."""
        if not len(batch):
            return RewardOutput(torch.zeros(0), {"truncated": torch.zeros(0)})
        cosines, truncated = self._pair.cosines(
            batch, [PREFIX + prompt.text for prompt in batch.prompts]
        )
        return RewardOutput((WEIGHT * cosines.clamp(min=0)).float(), {"truncated": truncated})
