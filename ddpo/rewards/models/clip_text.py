"""CLIP's text encoder: each text is embedded once, in a batch of texts of about its length."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from ddpo.rewards.models.clip_words import TextReader

__all__ = ["ClipText", "Remembered", "cut", "padded"]

REMEMBERED: Final = 4096  # texts, of at most 1024 floats each: 16 MB
AT_ONCE: Final = 16  # texts
STEP: Final = 16  # tokens; each text is padded to the next multiple


def cut(ids: list[int], limit: int) -> list[int]:
    """The first tokens up to `limit`, with the end token, where the embedding is read, kept.

    Source: openai/CLIP, clip.py, tokenize with truncate=True.
    """
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def padded(
    texts: Sequence[list[int]], limit: int, filler: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of texts of about one length: their places, and their tokens int64 `[some, length]`.

    Each text is padded at its end, to a length that depends on it alone. In a causal encoder the
    padding cannot affect the end token before it, where the embedding is read.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for place, ids in enumerate(texts):
        groups[min(limit, -(-len(ids) // STEP) * STEP)].append(place)
    for length, places in groups.items():
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            yield (
                some,
                torch.tensor(
                    [texts[place] + [filler] * (length - len(texts[place])) for place in some]
                ),
            )


class Remembered:
    """A memory of text embeddings: each text is embedded once, those of one call together.

    Args:
        run: function from distinct texts to the embedding `[width]` of each, and whether the text
            was truncated.
    """

    def __init__(self, run: Callable[[list[str]], list[tuple[Tensor, bool]]]) -> None:
        self._run = run
        self._known: OrderedDict[str, tuple[Tensor, bool]] = OrderedDict()
        self.passes = 0  # number of texts embedded so far

    def embed(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings of at least one text, and 1 where a text was truncated.

        Returns:
            Embeddings `[batch, width]` on the model's device, and flags float32 `[batch]`.
        """
        found = {text: self._known[text] for text in texts if text in self._known}
        if new := [text for text in dict.fromkeys(texts) if text not in found]:
            with torch.no_grad():
                found |= dict(zip(new, self._run(new), strict=True))
            self.passes += len(new)
        for text in texts:
            self._known[text] = found[text]
            self._known.move_to_end(text)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return torch.stack([found[text][0] for text in texts]), torch.tensor(
            [float(found[text][1]) for text in texts]
        )


class ClipText(Remembered):
    """The text half of a `transformers.CLIPModel`.

    Args:
        model: whole model in eval mode; its image half is not kept.
        read: function from a text to its token ids, from the start token to the end token.
        filler: token id for padding behind the end token.
    """

    def __init__(self, model: Any, read: TextReader, filler: int) -> None:
        super().__init__(self._embeddings)
        self._text_model = model.text_model
        self._projection = model.text_projection
        self._read = read
        self._filler = filler
        self._limit = int(model.config.text_config.max_position_embeddings)  # 77
        self._device = model.device

    def _embeddings(self, texts: list[str]) -> list[tuple[Tensor, bool]]:
        ids = [self._read(text) for text in texts]
        found: dict[int, Tensor] = {}
        for places, tokens in padded(
            [cut(each, self._limit) for each in ids], self._limit, self._filler
        ):
            made = self._projection(
                self._text_model(input_ids=tokens.to(self._device)).pooler_output
            )
            found |= dict(zip(places, made, strict=True))
        return [(found[place], len(each) > self._limit) for place, each in enumerate(ids)]
