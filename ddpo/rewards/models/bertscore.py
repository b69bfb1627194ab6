"""BERTScore as the package `bert-score` 0.3.13 computes it, without idf weights and without rescaling, on any encoder of transformers.

The package itself fails under transformers 5 where a tokenizer states no maximum length, and on empty texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.weights import offline

__all__ = ["BertScore", "Encoded", "Match", "match"]

MAX_TOKENS: Final = 512  # of DeBERTa's training; longer texts are cut where the tokenizer states no maximum
UNLIMITED: Final = 1_000_000  # a tokenizer without a maximum states 1e30


@dataclass(frozen=True, slots=True)
class Encoded:
    """The hidden states of a text."""

    states: Tensor  # float32 [tokens, width], special tokens included
    counts: Tensor  # bool [tokens]: False for the classification and separator tokens
    truncated: bool  # whether the end of the text was cut off


@dataclass(frozen=True, slots=True)
class Match:
    """How well a candidate and a reference match."""

    precision: float
    recall: float
    f1: float
    truncated: bool  # whether the end of the reference was cut off


def match(candidate: Encoded, reference: Encoded) -> tuple[float, float, float]:
    """Precision, recall, F1; all 0 where a text has no token that counts.

    R = mean over the reference's tokens of the largest cosine with a token of the candidate, P the same with the two exchanged,
    F1 = 2PR/(P+R). A special token is not averaged over, but another token may be most like it.

    Source: Zhang et al., arXiv 1904.09675, section 3; the special tokens as in bert-score 0.3.13, which gives them the weight 0 in the
    mean, and scores empty texts 0.
    """
    if not (candidate.counts.any() and reference.counts.any()):
        return 0.0, 0.0, 0.0
    cosines = normalize(reference.states, dim=-1) @ normalize(candidate.states, dim=-1).T
    recall = float(cosines.max(dim=1).values[reference.counts].mean())
    precision = float(cosines.max(dim=0).values[candidate.counts].mean())
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


class BertScore:
    """An encoder whose hidden states of one layer are compared. Layers above it are dropped, as they have no say.

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
        layers = getattr(getattr(self._model, "encoder", None), "layer", None)
        if isinstance(layers, torch.nn.ModuleList):
            self._model.encoder.layer = layers[: max(layer, 1)]
        self._model = self._model.eval().requires_grad_(False).to(device)
        self._layer, self._device = layer, device
        self._longest = _longest(self._tokenizer, self._model.config)

    def encode(self, text: str) -> Encoded:
        """The hidden states of a text, which goes through alone, so that padding cannot touch them."""
        whole: list[int] = self._tokenizer(text.strip(), verbose=False)["input_ids"]
        cut: list[int] = self._tokenizer(text.strip(), truncation=True, max_length=self._longest)["input_ids"]
        tokens = torch.tensor([cut], device=self._device)
        with torch.no_grad():
            output = self._model(tokens, attention_mask=torch.ones_like(tokens), output_hidden_states=True)
        special = {self._tokenizer.cls_token_id, self._tokenizer.sep_token_id}
        counts = torch.tensor([token not in special for token in cut], dtype=torch.bool, device=self._device)
        return Encoded(output.hidden_states[self._layer][0].float(), counts, len(cut) < len(whole))

    def score(self, candidate: str, reference: str) -> Match:
        """How much of `reference` is in `candidate`, and the other way round."""
        wanted = self.encode(reference)
        return Match(*match(self.encode(candidate), wanted), wanted.truncated)


def _longest(tokenizer: Any, config: Any) -> int:
    """How many tokens a text may have, special ones included."""
    stated = int(tokenizer.model_max_length)
    if stated < UNLIMITED:
        return stated
    places = int(getattr(config, "max_position_embeddings", None) or MAX_TOKENS)
    if "roberta" in str(config.model_type):
        places -= int(config.pad_token_id) + 1  # its positions are counted from there
    return min(MAX_TOKENS, places)
