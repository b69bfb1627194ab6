"""Prompt-image alignment as in the paper: LLaVA describes the picture, BERTScore recall finds the prompt in the description."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image

from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.catalog import CARDS
from ddpo.rewards.models.bertscore import BertScore
from ddpo.types import ImageBatch, RewardOutput
from ddpo.weights import offline

__all__ = ["Alignment", "jpeg80"]

QUESTION: Final = "Answer concisely: what is going on in this image?"
REFERENCE: Final = "The image contains {prompt}"
JPEG_QUALITY: Final = 80
NEW_TOKENS: Final = 64
"""Source of the four: arXiv 2305.13301, section 5 and appendix; kvablack/ddpo-pytorch rewards.py, kvablack/LLaVA-server."""


def jpeg80(image: Image.Image) -> Image.Image:
    """The picture after the JPEG round trip of the original's network protocol, which is part of the score."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY)
    file.seek(0)
    with Image.open(file) as decoded:
        return decoded.convert("RGB")


class Alignment:
    """BERTScore recall of "The image contains PROMPT" in LLaVA's description of the picture.

    Args:
        vlm: folder or hub id of an image-text-to-text model with a chat template.
        scorer: folder or hub id of the BERTScore encoder.
        layer: encoder layer that is compared.
        device: torch device of both.

    Raises:
        MissingResourceError: a model is not here and cannot be fetched; says its size, licence and how to get it.
    """

    card = CARDS["alignment"]

    def __init__(self, vlm: str, scorer: str, layer: int = 40, device: str = "cpu") -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        dtype = torch.float16 if torch.device(device).type != "cpu" else torch.float32
        self._device = device
        try:
            self._scorer = BertScore(scorer, layer, device)
            self._processor: Any = AutoProcessor.from_pretrained(vlm, local_files_only=offline())
            self._vlm: Any = AutoModelForImageTextToText.from_pretrained(vlm, local_files_only=offline(), dtype=dtype)
        except (OSError, ValueError, ImportError) as error:
            raise MissingResourceError(self._missing(error)) from error
        self._vlm = self._vlm.eval().requires_grad_(False).to(device)

    def _missing(self, error: Exception) -> str:
        needed = " and ".join(f"{w.source} ({w.megabytes / 1000:g} GB, {w.licence})" for w in self.card.weights)
        commands = " && ".join(f"hf download {w.source}" for w in self.card.weights)
        return (
            f"reward 'alignment' needs {needed}: run `{commands}`, or give folders as vlm=… and scorer=…; {one_line(error).split('. ')[0]}"
        )

    def describe(self, image: Image.Image) -> str:
        """The model's greedy answer to the question about one picture."""
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        text = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self._processor(images=[jpeg80(image)], text=[text], return_tensors="pt").to(self._device, self._vlm.dtype)
        with torch.no_grad():
            tokens = self._vlm.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        answer: Sequence[str] = self._processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer[0].strip()

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`, one picture at a time, so that batch mates and padding cannot touch a score."""
        answers = [self.describe(image) for image in batch.images]
        references = [REFERENCE.format(prompt=prompt.text) for prompt in batch.prompts]
        return RewardOutput(torch.tensor(self._scorer.recall(answers, references), dtype=torch.float32))
