"""The part of a prompt that a model reads, by its tokenizers and its text encoders' lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpo.errors import ConfigError, MissingResourceError, PromptError
from ddpo.policies.base_model import BaseModel, open_model
from ddpo.policies.model_place import place_of
from ddpo.text import shortened_middle

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CutPrompts", "PromptReader", "check_prompts", "find_reader"]


class PromptReader:
    """The tokenizers of a model, with the number of tokens that its text encoders read.

    A tokenizer without a stated length takes that of its text encoder.

    Args:
        base: Stable Diffusion or Stable Diffusion XL model.

    Raises:
        MissingResourceError: A file is missing or damaged.
        ConfigError: A tokenizer does not fit its encoder, or two encoders differ in length.
    """

    def __init__(self, base: BaseModel) -> None:
        from transformers import CLIPTextConfig

        self.model = base.word
        names = ["tokenizer", "tokenizer_2"] if "XL" in base.pipeline else ["tokenizer"]
        self.tokenizers = [base.load_tokenizer(name) for name in names]
        limits = []
        widths = []
        for name, tokenizer in zip(names, self.tokenizers, strict=True):
            encoder = base.read(name.replace("tokenizer", "text_encoder"), CLIPTextConfig)
            if max(tokenizer.get_vocab().values()) >= encoder.vocab_size:
                raise ConfigError(
                    f"the {name} of the model {base.word!r} has {len(tokenizer)} tokens, "
                    f"and its text encoder {encoder.vocab_size}"
                )
            widths.append(int(encoder.hidden_size))
            longest = int(encoder.max_position_embeddings)
            limits.append(min(int(tokenizer.model_max_length), longest))
        if len(set(limits)) > 1:
            raise ConfigError(
                f"the text encoders of the model {base.word!r} read {limits[0]} and {limits[1]} "
                "tokens: they must be equal"
            )
        self.length = limits[0]  # tokens, including start and end
        self.width = sum(widths)  # of the text conditioning, with the encoders side by side

    @property
    def kept(self) -> int:
        """The number of tokens that are read of a prompt, without start and end."""
        return self.length - int(self.tokenizers[0].num_special_tokens_to_add())

    def tokens(self, text: str) -> list[tuple[Tensor, Tensor]]:
        """Padded or cut ids of a text for each encoder, with their mask; int64 `[1, tokens]` each.

        The mask is 0 for padding and else 1.
        """
        found = []
        for tokenizer in self.tokenizers:
            made = tokenizer(
                [text],
                padding="max_length",
                max_length=self.length,
                truncation=True,
                return_tensors="pt",
            )
            found.append((made.input_ids, made.attention_mask))
        return found

    def read(self, text: str) -> tuple[tuple[int, ...], ...]:
        """The tokens of a text that each encoder reads; equal tokens mean equal prompts."""
        return tuple(tuple(ids[: self.kept]) for ids in self._ids(text))

    def unread(self, text: str) -> str:
        """The end of a text that exceeds the tokens of an encoder; "" if the text fits."""
        pairs = zip(self.tokenizers, self._ids(text), strict=True)
        ends = [
            tokenizer.decode(ids[self.kept :]) for tokenizer, ids in pairs if len(ids) > self.kept
        ]
        return max(ends, key=len, default="")

    def _ids(self, text: str) -> list[list[int]]:
        return [
            tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            for tokenizer in self.tokenizers
        ]


@dataclass(frozen=True, slots=True)
class CutPrompts:
    """The prompts of a list that are too long for a model."""

    ends: dict[str, str]  # prompt → its end, which is not read
    total: int  # number of distinct prompts in the list
    kept: int  # number of tokens that are read

    def __str__(self) -> str:
        """One sentence with the number of prompts and an example."""
        text, end = map(shortened_middle, next(iter(self.ends.items())))
        verb = "is" if len(self.ends) == 1 else "are"
        return (
            f"{len(self.ends)} of {self.total} prompts {verb} cut: "
            f'the model reads {self.kept} tokens, and of "{text}" not "{end}"'
        )


def check_prompts(reader: PromptReader, texts: Sequence[str]) -> CutPrompts | None:
    """The prompts that are too long for a model; None if all fit.

    Raises:
        PromptError: Two prompts differ only beyond the tokens the model reads.
    """
    distinct = list(dict.fromkeys(texts))
    ends = {text: end for text in distinct if (end := reader.unread(text))}
    if not ends:
        return None
    known: dict[Any, str] = {}
    for text in sorted(distinct, key=lambda text: text in ends):
        other = known.setdefault(reader.read(text), text)
        if other != text and text in ends:
            pair = f'"{shortened_middle(other)}" and "{shortened_middle(text)}"'
            raise PromptError(
                f"the model reads {reader.kept} tokens, so that two prompts are one to it: {pair}; "
                "shorten them, or leave one out"
            )
    return CutPrompts(ends, len(distinct), reader.kept)


def find_reader(model: str) -> PromptReader | None:
    """The prompt reader of a model; None for plug-ins and for a model that is not available."""
    place = place_of(model)
    if place is None or place.kind in ("code", "file"):
        return None
    try:
        base = open_model(model)
    except (MissingResourceError, ConfigError):
        return None
    return PromptReader(base) if base.pipeline.startswith("StableDiffusion") else None
