"""Prompt-image alignment as in the paper: LLaVA describes the image, BERTScore recall finds the prompt in the description."""

from __future__ import annotations

import threading
from typing import Final

import torch
from PIL import Image

from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.bertscore import BertScore, Match
from ddpo.rewards.models.vlm_reward import served
from ddpo.rewards.vlm import UnusableAnswer, Vlm, is_server, jpeg80, open_vlm
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Alignment"]

QUESTION: Final = "Answer concisely: what is going on in this image?"
REFERENCE: Final = "The image contains {prompt}"
NEW_TOKENS: Final = 64
"""Source of the three: arXiv 2305.13301, section 5 and appendix; kvablack/ddpo-pytorch rewards.py, kvablack/LLaVA-server."""
NO_MATCH: Final = Match(torch.nan, torch.nan, torch.nan, truncated=False)


class Alignment:
    """BERTScore recall of "The image contains PROMPT" in a model's description of the image; precision and F1 are parts.

    An image of which the model says nothing is unscorable.

    Args:
        vlm: folder or hub id of an image-text-to-text model with a chat template, or the address of a server of OpenAI's protocol.
        scorer: folder or hub id of the BERTScore encoder.
        layer: encoder layer that is compared.
        device: torch device of what runs here.
        model: a server's name of the model; None: the first one that it lists, and scores are not kept in the cache.
        timeout: seconds after which an answer of a server is given up.

    Raises:
        MissingResourceError: a model is not here and cannot be fetched; says its size, licence and how to get it.
        ConfigError: an address, time-out or layer that cannot be.
    """

    card = CARDS["alignment"]

    def __init__(
        self,
        vlm: str,
        scorer: str,
        layer: int = 40,
        device: str = "cpu",
        model: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        try:
            self._scorer = BertScore(scorer, layer, device)
            self._vlm: Vlm = open_vlm(vlm, device, model=model, timeout_s=timeout)
        except MissingResourceError as error:
            raise MissingResourceError(self._missing(error, is_server(vlm))) from error
        self._scoring = threading.Lock()  # the encoder's tokenizer lets one thread in at a time
        if is_server(vlm):
            self.card = served(self.card, model)

    def _missing(self, error: Exception, served: bool) -> str:
        weights = self.card.weights[1:] if served else self.card.weights
        needed = " and ".join(
            f"{w.source} ({w.megabytes / 1000:g} GB, {w.licence})" for w in weights
        )
        commands = " && ".join(f"hf download {w.source}" for w in weights)
        return f"reward 'alignment' needs {needed}: run `{commands}`, or give folders as vlm=… and scorer=…; {one_line(error).split('. ')[0]}"

    def describe(self, image: Image.Image) -> str:
        """The model's greedy answer to the question about one image; raises as `Vlm.answer`."""
        return self._vlm.answer(
            image if self._vlm.sends_jpeg else jpeg80(image), QUESTION, NEW_TOKENS
        )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`, one image at a time, so that batch mates and padding cannot touch a score.

        Raises:
            RewardUnavailable: the server does not answer, or not now.
            ConfigError: the server refuses such questions altogether.
        """
        found = [
            self._score(image, prompt.text)
            for image, prompt in zip(batch.images if len(batch) else [], batch.prompts, strict=True)
        ]
        matches = [item if isinstance(item, Match) else NO_MATCH for item in found]
        errors = tuple(None if isinstance(item, Match) else item for item in found)
        names = ("precision", "f1", "truncated")
        parts = {
            name: torch.tensor([getattr(item, name) for item in matches], dtype=torch.float32)
            for name in names
        }
        return RewardOutput(
            torch.tensor([item.recall for item in matches], dtype=torch.float32), parts, errors
        )

    def _score(self, image: Image.Image, prompt: str) -> Match | str:
        """The match of description and prompt, or why there is none."""
        try:
            description = self.describe(image)
        except UnusableAnswer as error:
            return one_line(error)
        with self._scoring:
            return self._scorer.score(description, REFERENCE.format(prompt=prompt))
