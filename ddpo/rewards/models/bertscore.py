"""BERTScore recall, on any encoder that transformers loads.

The package `bert-score` 0.3.13 does not work with transformers 5 where a tokenizer states no maximum length; this is the one number
of it that the alignment reward needs, without idf weights and without rescaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.weights import offline

__all__ = ["BertScore", "recall"]

MAX_TOKENS: Final = 512  # of DeBERTa's training; longer texts are cut


def recall(candidate: Tensor, reference: Tensor) -> float:
    """R = mean over reference tokens of the largest cosine with a candidate token.

    Args:
        candidate: hidden states `[tokens, width]`, special tokens included, as in the original.
        reference: hidden states `[tokens, width]`.

    Source: Zhang et al., arXiv 1904.09675, section 3, equation of R_BERT.
    """
    cosines = normalize(reference.float(), dim=-1) @ normalize(candidate.float(), dim=-1).T
    return float(cosines.max(dim=1).values.mean())


class BertScore:
    """An encoder whose hidden states of one layer are compared.

    Args:
        model: folder or hub id.
        layer: 40 for deberta-xlarge-mnli, as bert-score chooses; 0 is the embedding.
        device: torch device.

    Raises:
        MissingResourceError: the model is not here and cannot be fetched.
        ConfigError: it has fewer layers.
    """

    def __init__(self, model: str, layer: int, device: str = "cpu") -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=offline())
            self._model: Any = AutoModel.from_pretrained(model, local_files_only=offline(), dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise MissingResourceError(f"the BERTScore encoder {model} cannot be loaded: {one_line(error)}") from error
        depth = int(self._model.config.num_hidden_layers)
        if not 0 <= layer <= depth:
            raise ConfigError(f"layer {layer} of {model}: it has the layers 0 … {depth}")
        self._model = self._model.eval().requires_grad_(False).to(device)
        self._layer, self._device = layer, device

    def embed(self, text: str) -> Tensor:
        """Hidden states of a text, special tokens included: `[tokens, width]`."""
        tokens = self._tokenizer(text.strip(), truncation=True, max_length=MAX_TOKENS, return_tensors="pt").to(self._device)
        with torch.no_grad():
            output = self._model(**tokens, output_hidden_states=True)
        states: Tensor = output.hidden_states[self._layer][0]
        return states

    def recall(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """The recall of each reference in its candidate. Texts go through one by one: padding cannot touch the score."""
        pairs = zip(candidates, references, strict=True)
        return [recall(self.embed(candidate), self.embed(reference)) for candidate, reference in pairs]
