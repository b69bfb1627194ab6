"""CLIP's text tower: texts → embeddings, each text run once and alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

__all__ = ["ClipText", "cut"]

REMEMBERED: Final = 4096  # texts, of at most 1024 floats each: 16 MB


def cut(ids: list[int], limit: int) -> list[int]:
    """At most `limit` tokens; the last one, which is the end token that the embedding is read at, stays.

    Source: openai/CLIP, clip.py, tokenize with truncate=True.
    """
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


class ClipText:
    """The text half of a `transformers.CLIPModel`. Texts go through one by one, without padding, so that nothing can touch an embedding.

    transformers' tokenizer is used for its vocabulary's sake. OpenAI's also mends mis-decoded text and HTML entities first, which
    prompts should not hold.

    Args:
        model: the whole model, in eval mode; its image half is not kept.
        tokenizer: puts the start token before a text and the end token behind it.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._text_model, self._projection, self._tokenizer = model.text_model, model.text_projection, tokenizer
        self._limit = int(model.config.text_config.max_position_embeddings)  # 77
        self._device = model.device
        self._known: OrderedDict[str, tuple[Tensor, bool]] = OrderedDict()
        self.passes = 0  # texts that went through the tower so far

    def embed(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Projected embeddings `[batch, width]` of one text or more, on the model's device; float32 `[batch]`, 1 where a text was cut."""
        found = [self._embedded(text) for text in texts]
        return torch.stack([embedding for embedding, _ in found]), torch.tensor([float(was_cut) for _, was_cut in found])

    def _embedded(self, text: str) -> tuple[Tensor, bool]:
        if text not in self._known:
            self._known[text] = self._run(text)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(text)
        return self._known[text]

    def _run(self, text: str) -> tuple[Tensor, bool]:
        ids: list[int] = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        tokens = torch.tensor([cut(ids, self._limit)], device=self._device)
        with torch.no_grad():
            embedding: Tensor = self._projection(self._text_model(input_ids=tokens).pooler_output)[0]
        self.passes += 1
        return embedding, len(ids) > self._limit
