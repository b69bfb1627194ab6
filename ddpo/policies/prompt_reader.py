"""The part of a prompt that a model reads, by its tokenizers and its text encoders' lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import ConfigError, MissingResourceError, PromptError, one_line
from ddpo.policies.base_model import BaseModel, open_model
from ddpo.policies.model_place import place_of
from ddpo.policies.pipelines import PIPELINES
from ddpo.text import shortened, shortened_middle

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CutPrompts", "PromptReader", "check_prompts", "find_reader"]

MARK: Final = "prompt"
"""A text that shows its place in a chat template."""
MESSAGE: Final = 200  # characters to show of a template's message
CONFIGS: Final[Mapping[str, str]] = {
    "CLIPTokenizer": "CLIPTextConfig",
    "T5TokenizerFast": "T5Config",
    "Qwen2Tokenizer": "Qwen3Config",
}
"""Class of a tokenizer → class of its text encoder's config."""


class PromptReader:
    """The tokenizers of a model, with the number of tokens that each of its text encoders reads.

    A tokenizer without a stated length takes that of its text encoder. A prompt is read as far as
    the encoder with the most tokens reads it.

    Args:
        base: Model of a pipeline in `ddpo.policies.pipelines`.

    Raises:
        MissingResourceError: A file is missing or damaged.
        ConfigError: A tokenizer does not fit its encoder, or two CLIP encoders differ in length.
    """

    def __init__(self, base: BaseModel) -> None:
        kind = PIPELINES[base.pipeline]
        self.model = base.word
        self.chat = kind.chat
        self.names = [
            name
            for name in kind.tokenizers
            if name not in kind.optional or base.names(_encoder_of(name))
        ]
        self.tokenizers = [base.load_tokenizer(name) for name in self.names]
        self.lengths: list[int] = []  # tokens of each encoder, including start and end
        self.widths: list[int] = []  # of each encoder's hidden states
        for name, tokenizer in zip(self.names, self.tokenizers, strict=True):
            encoder = _encoder_config(base, name)
            self._check_template(name, tokenizer)
            if max(tokenizer.get_vocab().values()) >= encoder.vocab_size:
                raise ConfigError(
                    f"the {name} of the model {base.word!r} has {len(tokenizer)} tokens, "
                    f"and its text encoder {encoder.vocab_size}"
                )
            self.widths.append(int(encoder.hidden_size))
            longest = int(kind.tokens.get(name) or encoder.max_position_embeddings)
            own = longest if name in kind.tokens else int(tokenizer.model_max_length)
            self.lengths.append(min(own, longest))
        beside = {
            length
            for name, length in zip(self.names, self.lengths, strict=True)
            if name not in kind.tokens
        }
        if len(beside) > 1:
            raise ConfigError(
                f"the text encoders of the model {base.word!r} read {self.lengths[0]} and "
                f"{self.lengths[1]} tokens: they must be equal"
            )
        self.longest = self.lengths.index(max(self.lengths))

    @property
    def width(self) -> int:
        """Width of the text conditioning, with all encoders side by side."""
        return sum(self.widths)

    @property
    def length(self) -> int:
        """The greatest number of tokens that an encoder reads, including start and end."""
        return self.lengths[self.longest]

    @property
    def kept(self) -> int:
        """The number of tokens that are read of a prompt, without start and end."""
        return self._kept(self.longest)

    def tokens(self, text: str) -> list[tuple[Tensor, Tensor]]:
        """Padded or cut ids of a text for each encoder, with their mask; int64 `[1, tokens]` each.

        The mask is 0 for padding and else 1.
        """
        found = []
        places = zip(self.names, self.tokenizers, self.lengths, strict=True)
        for name, tokenizer, length in places:
            made = tokenizer(
                [self._message(name, tokenizer, text)],
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            )
            found.append((made.input_ids, made.attention_mask))
        return found

    def read(self, text: str) -> tuple[tuple[int, ...], ...]:
        """The tokens of a text that each encoder reads; equal tokens mean equal prompts."""
        return tuple(tuple(ids[: self._kept(at)]) for at, ids in enumerate(self._ids(text)))

    def unread(self, text: str) -> str:
        """The end of a text that exceeds the tokens of the longest encoders; "" if it fits."""
        ends = [
            self.tokenizers[at].decode(ids[self.kept :])
            for at, ids in enumerate(self._ids(text))
            if self.lengths[at] == self.length and len(ids) > self.kept
        ]
        return max(ends, key=len, default="")

    def _kept(self, at: int) -> int:
        tokenizer = self.tokenizers[at]
        before = self._message(self.names[at], tokenizer, MARK).partition(MARK)[0]
        opening = len(tokenizer(before, add_special_tokens=False).input_ids)
        return self.lengths[at] - opening - int(tokenizer.num_special_tokens_to_add())

    def _message(self, name: str, tokenizer: Any, text: str) -> str:
        """The text as the tokenizer is given it, in a chat template if the pipeline uses one."""
        if name not in self.chat:
            return text
        message = [{"role": "user", "content": text}]
        rendered: str = tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, **self.chat[name]
        )
        return rendered

    def _check_template(self, name: str, tokenizer: Any) -> None:
        """Raises unless the chat template shows a prompt, if the pipeline uses one."""
        try:
            shown = MARK in self._message(name, tokenizer, MARK)
        except Exception as error:  # a template is a program, which can raise anything
            reason = shortened(one_line(error), MESSAGE)
            raise ConfigError(
                f"the {name} of the model {self.model!r} has no chat template that works: {reason}"
            ) from error
        if not shown:
            raise ConfigError(
                f"the chat template of the {name} of the model {self.model!r} leaves out the prompt"
            )

    def _ids(self, text: str) -> list[list[int]]:
        return [
            tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            for tokenizer in self.tokenizers
        ]


def _encoder_of(tokenizer: str) -> str:
    """The name of the text encoder that a tokenizer writes for."""
    return tokenizer.replace("tokenizer", "text_encoder")


def _encoder_config(base: BaseModel, tokenizer: str) -> Any:
    """The config of the text encoder that a tokenizer writes for."""
    import transformers

    classes = PIPELINES[base.pipeline].classes[tokenizer]
    base.check_part(_encoder_of(tokenizer))
    return base.read(_encoder_of(tokenizer), getattr(transformers, CONFIGS[classes[0]]))


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
    return PromptReader(base) if base.pipeline in PIPELINES else None
