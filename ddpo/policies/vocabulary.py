"""The vocabularies of the embedded models, and the words of a prompt that lie outside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final

from ddpo.policies.model_place import EMBEDDED
from ddpo.prompts.nouns import subjects
from ddpo.registry import nearest

__all__ = ["unknown_words", "unknown_words_line"]

SMALL_WORDS: Final = frozenset({"the", "of", "is", "two", "three", "some", "and"})
"""Words that name no subject, which the warning leaves out."""
MOST_NAMED: Final = 5  # unknown words in one line


@cache
def _taught(model: str, kind: str) -> tuple[str, ...]:
    """The trained "nouns", or all "words" of the training captions, from a file of pretraining."""
    text = (files(EMBEDDED[model]) / "words.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)[kind])


def unknown_words(texts: Iterable[str], model: str = "emoji") -> dict[str, str | None]:
    """Words outside the training captions, in order, with the most similar trained noun or None.

    The plural of a trained noun counts as unknown to `emoji`, which reads it letter by letter.

    Args:
        texts: Prompts.
        model: Name of an embedded model.
    """
    known = frozenset(_taught(model, "words"))
    found: dict[str, str | None] = {}
    for text in texts:
        for word in re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower()) or text.split():
            if word not in known and word not in SMALL_WORDS and word not in found:
                found[word] = _nearest_noun(word, model)
    return found


def _nearest_noun(word: str, model: str) -> str | None:
    """The trained noun with a word as plural, kind or synonym; else the one spelt most alike."""
    nouns = _taught(model, "nouns")
    related = [noun for subject in subjects(word) for noun, _ in subject.relations if noun in nouns]
    return related[0] if related else nearest(word, nouns)


def unknown_words_line(model: str, texts: Iterable[str]) -> str | None:
    """One line about the unknown words of prompts; None for other models or without such words."""
    if model not in EMBEDDED or not (found := unknown_words(texts, model)):
        return None
    named = [
        f"{word!r} (like {near!r}?)" if near else repr(word)
        for word, near in list(found.items())[:MOST_NAMED]
    ]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return (
        f"the embedded model was never taught {', '.join(named)}{more}; "
        f"it knows {len(_taught(model, 'nouns'))} nouns, such as 'cat' and 'teapot'"
    )
