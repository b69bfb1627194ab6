"""The words of the embedded model's training captions, and the words of a prompt that are none of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

from ddpo.prompts.nouns import subjects
from ddpo.registry import nearest
from pretraining.glyphs import NOUNS
from pretraining.tokenizer import caption_words

__all__ = ["unknown_words", "unknown_words_line"]

SMALL_WORDS: Final = frozenset({"the", "of", "is", "two", "three", "some", "and"})
"""Words that name nothing to draw; left out of the warning."""
MOST_NAMED: Final = 5  # unknown words in one line


@cache
def _known() -> frozenset[str]:
    return frozenset(caption_words())


def unknown_words(texts: Iterable[str]) -> dict[str, str | None]:
    """Each word that the model was never taught, in order of appearance, with the taught noun most like it, if any is.

    A plural of a taught noun counts as unknown: the model reads letters there, not the noun.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        for word in re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower()) or text.split():
            if word not in _known() and word not in SMALL_WORDS and word not in found:
                found[word] = _nearest_noun(word)
    return found


def _nearest_noun(word: str) -> str | None:
    """The taught noun that a word is the plural, a kind or a synonym of; else the one spelt most alike."""
    related = [noun for subject in subjects(word) for noun, _ in subject.relations if noun in NOUNS]
    return related[0] if related else nearest(word, NOUNS)


def unknown_words_line(model: str, texts: Iterable[str]) -> str | None:
    """One line about the words that the embedded model was never taught; None for other models, or if it knows all of them."""
    if model != "emoji" or not (found := unknown_words(texts)):
        return None
    named = [
        f"{word!r} (like {near!r}?)" if near else repr(word)
        for word, near in list(found.items())[:MOST_NAMED]
    ]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"the embedded model was never taught {', '.join(named)}{more}; it knows 133 nouns, such as 'cat' and 'teapot'"
