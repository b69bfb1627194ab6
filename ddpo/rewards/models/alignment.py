"""Prompt alignment as in the DDPO paper: BERTScore recall of the prompt in LLaVA's description."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from PIL import Image

from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.embedded import LAYER, is_embedded
from ddpo.rewards.models.bertscore import BertScore, Match
from ddpo.rewards.models.embedded_judges import judge_folder
from ddpo.rewards.models.load_errors import first_sentence
from ddpo.rewards.models.vlm_reward import served
from ddpo.rewards.scoring.user_reward import card_for
from ddpo.rewards.spec import redacted
from ddpo.rewards.vlm import UnusableAnswer, Vlm, is_server, jpeg80, open_vlm
from ddpo.rewards.vlm.local import LocalVlm
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Alignment"]

QUESTION: Final = "Answer concisely: what is going on in this image?"
REFERENCE: Final = "The image contains {prompt}"
NEW_TOKENS: Final = 64
"""Source of the three: arXiv 2305.13301, section 5 and appendix; kvablack/ddpo-pytorch rewards.py,
kvablack/LLaVA-server."""
NO_MATCH: Final = Match(torch.nan, torch.nan, torch.nan, truncated=False)


class Alignment:
    """BERTScore recall of "The image contains PROMPT" in a model's description of the image.

    Precision and F1 are parts. An image that gets an empty description is unscorable.

    Args:
        vlm: folder or hub id of an image-text-to-text model with a chat template, or the address of
            a server that speaks OpenAI's protocol.
        scorer: folder or hub id of the BERTScore encoder.
        layer: encoder layer whose hidden states are compared.
        device: torch device of the local models.
        model: "emoji" for the embedded captioner and sentence encoder; with a server the name of
            its model; None for the first that it lists, and scores are then not cached.
        timeout: time limit of an answer by a server, in seconds.

    Raises:
        MissingResourceError: A model is neither here nor downloadable; the message has its size,
            its licence and the command that fetches it.
        ConfigError: The address, time limit, layer or model is invalid.
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
        options = {
            "vlm": vlm,
            "scorer": scorer,
            "layer": layer,
            "device": device,
            "model": model,
            "timeout": timeout,
        }
        self.card = card_for(self.card, options, "ddpo")
        if is_embedded(self.card):
            vlm = str(judge_folder("captioner"))
            scorer = str(judge_folder("sentence_encoder"))
            layer = LAYER
        try:
            self._scorer = BertScore(scorer, layer, device)
            self._vlm: Vlm = open_vlm(vlm, device, model=model, timeout_s=timeout)
        except MissingResourceError as error:
            raise MissingResourceError(self._missing(error, vlm)) from error
        self._captioner: LocalVlm | None = None  # decodes images together
        if is_embedded(self.card) and isinstance(self._vlm, LocalVlm):
            self._captioner = self._vlm
        self._scoring = threading.Lock()  # the encoder's tokenizer is not thread-safe
        if is_server(vlm):
            self.card = served(self.card, model)

    def _missing(self, error: Exception, vlm: str) -> str:
        weights = self.card.weights[1:] if is_server(vlm) else self.card.weights
        reward = shlex.quote(redacted(f"alignment:vlm={vlm}")) if is_server(vlm) else "alignment"
        needed = " and ".join(
            f"{w.source} ({w.megabytes / 1000:g} GB, {w.licence})" for w in weights
        )
        cause = first_sentence(error)
        return (
            f"reward 'alignment' needs {needed}: run `ddpo rewards download {reward}`, "
            f"or give folders as vlm=… and scorer=…; {cause}"
        )

    def describe(self, image: Image.Image) -> str:
        """The model's greedy description of one image; raises as `Vlm.answer`."""
        return self._vlm.answer(
            image if self._vlm.sends_jpeg else jpeg80(image), QUESTION, NEW_TOKENS
        )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; no score depends on batch mates or padding.

        The embedded captioner decodes images together, with the same answers as one at a time.
        Larger models decode one image at a time.

        Raises:
            RewardUnavailable: The server does not answer, or is busy.
            ConfigError: The server refuses such questions altogether.
        """
        images = list(batch.images) if len(batch) else []
        found = [
            self._match(description, prompt.text)
            for description, prompt in zip(self._descriptions(images), batch.prompts, strict=True)
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

    def _descriptions(self, images: Sequence[Image.Image]) -> Iterator[str | UnusableAnswer]:
        """The description of each image, or the reason why there is none."""
        if self._captioner is not None:
            yield from self._captioner.answers(
                [jpeg80(image) for image in images], QUESTION, NEW_TOKENS
            )
            return
        for image in images:
            try:
                yield self.describe(image)
            except UnusableAnswer as error:
                yield error

    def _match(self, description: str | UnusableAnswer, prompt: str) -> Match | str:
        """The match of description and prompt, or the reason why there is none."""
        if isinstance(description, UnusableAnswer):
            return one_line(description)
        with self._scoring:
            return self._scorer.score(description, REFERENCE.format(prompt=prompt))
