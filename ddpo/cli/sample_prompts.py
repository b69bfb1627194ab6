"""The prompts of `ddpo sample`, and notes on how the model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpo.cli.console import note
from ddpo.errors import ConfigError
from ddpo.text import as_utf8

if TYPE_CHECKING:
    from ddpo.types import Prompt

__all__ = ["given_prompts", "note_prompts"]


def given_prompts(texts: list[str], file: str | None) -> tuple[Prompt, ...]:
    """The prompts of the command line or of --prompts.

    Raises:
        ConfigError: Both are given, or neither.
    """
    from ddpo.prompts import load_prompts
    from ddpo.types import Prompt

    if bool(texts) == bool(file):
        raise ConfigError("give either texts or --prompts FILE")
    return load_prompts(file).prompts if file else tuple(Prompt(as_utf8(text)) for text in texts)


def note_prompts(model: str, texts: Sequence[str]) -> None:
    """Notes words that the model was never taught, and prompts that it does not read to the end.

    Raises:
        PromptError: Two prompts are the same to the model.
    """
    from ddpo.policies.prompt_reader import check_prompts, find_reader
    from ddpo.policies.vocabulary import unknown_words_line

    reader = find_reader(model)
    cut = check_prompts(reader, texts) if reader else None
    for line in (unknown_words_line(model, texts), cut):
        if line:
            note(line)
