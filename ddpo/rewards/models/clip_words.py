"""CLIP token ids of texts, by transformers' tokenizer or by the rules of OpenAI's own."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ftfy

from ddpo.errors import ConfigError

__all__ = ["TextReader", "openai_clean", "openai_reader", "plain_reader"]

TextReader = Callable[[str], list[int]]
"""Function from a text to all its token ids, between the start token and the end token."""


def plain_reader(tokenizer: Any) -> TextReader:
    """The tokenizer of transformers as it is: Unicode NFC, single spaces, lower case."""

    def read(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids

    return read


def openai_clean(text: str) -> str:
    """The text that OpenAI's tokenizer reads.

    Mis-decoded letters are repaired; typographic quotes, full-width letters and ligatures become
    plain ones. HTML entities are replaced, twice over. Then single spaces and lower case.

    Source: openai/CLIP, clip/simple_tokenizer.py, basic_clean and whitespace_clean.
    """
    unescaped = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(unescaped.split()).lower()


def openai_reader(tokenizer: Any) -> TextReader:
    """The vocabulary of a CLIP tokenizer of transformers behind OpenAI's own cleaning.

    The normaliser of `tokenizer` is removed: OpenAI's tokenizer does not compose letters again
    after it has replaced HTML entities.

    Args:
        tokenizer: CLIP tokenizer of transformers, not in use elsewhere.

    Raises:
        ConfigError: The tokenizer is not one of the library `tokenizers`, as CLIP's is.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):
        kind = type(tokenizer).__name__
        raise ConfigError(f"the CLIP model's tokenizer is a {kind}; a CLIPTokenizer is needed")
    tokenizer.backend_tokenizer.normalizer = None
    read = plain_reader(tokenizer)
    return lambda text: read(openai_clean(text))
