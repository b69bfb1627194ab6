"""BERTScore by the package `bert-score`, without idf weights and without rescaling.

bert-score 0.3.13 fails with transformers 5 in three places, all handled outside the package:

- A tokenizer that states no maximum length overflows. It gets the model's maximum.
- transformers 5 keeps the type of a checkpoint in half precision, in which DeBERTa does not run.
  The model becomes float32, as it was under transformers 4, on which the originals ran.
- An empty text raises an AttributeError. It scores 0 here, as the package intends.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.rewards.offload import place
from ddpo.weights import fetch_hub_repository, without_loading_bars

__all__ = ["BertScore", "Match"]

MAX_TOKENS: Final = 512
"""Length in DeBERTa's training; longer texts are cut where the tokenizer states no maximum."""
UNLIMITED: Final = 1_000_000  # a tokenizer without a maximum states 1e30
T5: Final = "t5"
REMEMBERED: Final = 4096  # pairs of texts


@dataclass(frozen=True, slots=True)
class Match:
    """BERTScore of a candidate and a reference."""

    precision: float
    recall: float
    f1: float
    truncated: bool  # True if the end of the reference was cut off


class BertScore:
    """A `bert_score.BERTScorer` that scores one pair of texts at a time.

    Args:
        model: folder or hub id of the encoder.
        layer: number of the compared layer: 40 for deberta-xlarge-mnli, as bert-score chooses; 0
            is the embedding.
        device: torch device.

    Raises:
        MissingResourceError: The model is neither here nor downloadable.
        ConfigError: The model has fewer layers.
    """

    @without_loading_bars()
    def __init__(self, model: str, layer: int, device: str = "cpu") -> None:
        from bert_score import BERTScorer
        from safetensors import SafetensorError

        folder = (
            Path(model)
            if os.path.isdir(model)
            else fetch_hub_repository(model, "main", f"the BERTScore encoder {model}")
        )
        config = _config(folder, layer)
        try:
            with _plain_name(folder, config) as name:
                self._scorer: Any = BERTScorer(
                    model_type=name, num_layers=layer, use_fast_tokenizer=True, device=device
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _cannot_load(folder, error) from error
        place(
            self._scorer._model.float().requires_grad_(False), device
        )  # the package has no setting for float32
        self._tokenizer: Any = self._scorer._tokenizer
        self._tokenizer.model_max_length = _longest(self._tokenizer, config)
        self._known: OrderedDict[tuple[str, str], Match] = OrderedDict()

    def score(self, candidate: str, reference: str) -> Match:
        """Recall of `reference` in `candidate`, and precision.

        The scores of a pair depend on that pair alone, and the latest pairs are remembered. All
        three are 0 where a text is empty.

        Source: Zhang et al., arXiv 1904.09675, section 3.
        """
        pair = (candidate, reference)
        found = self._known[pair] = self._known.get(pair) or self._score(candidate, reference)
        self._known.move_to_end(pair)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _score(self, candidate: str, reference: str) -> Match:
        if not (candidate.strip() and reference.strip()):
            return Match(0.0, 0.0, 0.0, truncated=False)
        whole: list[int] = self._tokenizer(reference.strip(), verbose=False)["input_ids"]
        precision, recall, f1 = (
            float(part) for part in self._scorer.score([candidate], [reference])
        )
        return Match(precision, recall, f1, len(whole) > self._tokenizer.model_max_length)


def _config(folder: Path, layer: int) -> Any:
    """The configuration of the model in a folder, which has at least that many layers.

    Raises:
        MissingResourceError, ConfigError: as `BertScore`.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise _cannot_load(folder, error) from error
    depth = int(config.num_hidden_layers)
    if not 0 <= layer <= depth:
        raise ConfigError(f"layer {layer} of {folder}: it has the layers 0 … {depth}")
    return config


@contextmanager
def _plain_name(folder: Path, config: Any) -> Iterator[str]:
    """A path of the folder that does not mislead bert-score about the kind of the model.

    The package takes any path with "t5" in it for that of a T5 model.
    """
    path = str(folder.resolve())
    if T5 not in path or T5 in str(config.model_type):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="encoder-") as place:
        link = Path(place) / "model"
        link.symlink_to(path, target_is_directory=True)
        yield str(link)


def _cannot_load(folder: Path, error: Exception) -> MissingResourceError:
    return MissingResourceError(
        f"the BERTScore encoder {folder} cannot be loaded: {one_line(error)}"
    )


def _longest(tokenizer: Any, config: Any) -> int:
    """The greatest number of tokens of a text, special ones included."""
    stated = int(tokenizer.model_max_length)
    if stated < UNLIMITED:
        return stated
    places = int(getattr(config, "max_position_embeddings", None) or MAX_TOKENS)
    if "roberta" in str(config.model_type):
        places -= int(config.pad_token_id) + 1  # its positions are counted from there
    return min(MAX_TOKENS, places)
