"""The check that held-out prompts are not training prompts in disguise."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ddpo.prompts.nouns import subjects, words
from ddpo.types import Prompt

__all__ = ["LEAK_JACCARD", "Disguise", "Leak", "find_kin", "find_leaks"]

LEAK_JACCARD: Final = 0.8
"""Word overlap (Jaccard index) from which two prompts count as near-duplicates."""
ROUNDING: Final = 1e-9  # 0.8 is no binary fraction

Disguise = Literal["words", "overlap", "noun", "synonym", "kind", "wider"]
"""The kinds of match, strongest first; "wider" alone is no leak: a kind with its own name."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out prompt that is too similar to a training prompt, and the reason."""

    heldout: Prompt
    train: Prompt
    reason: str
    disguise: Disguise = "words"


def find_leaks(train: Sequence[Prompt], heldout: Sequence[Prompt]) -> list[Leak]:
    """Held-out prompts that leak from a training prompt, each with its strongest reason.

    The reasons, strongest first:

    - the same words, apart from articles, case, order and plural;
    - a word overlap |A ∩ B| / |A ∪ B| (Jaccard index) of at least 0.8;
    - the same noun (`ddpo.prompts.nouns`);
    - another word for it ("bunny", "rabbit");
    - a kind of it ("beagle", "dog"), whichever of the two was trained on.
    """
    overlaps = _Overlaps(train)
    nouns = _Nouns(train)
    found = ((overlaps.leak(prompt) or nouns.leak(prompt)) for prompt in heldout)
    return [leak for leak in found if leak is not None]


def find_kin(train: Sequence[Prompt], heldout: Sequence[Prompt]) -> list[Leak]:
    """Held-out prompts whose noun belongs to a trained kind but has its own name (owl and bird).

    They count as unseen, since nobody calls an image of one by the trained noun.
    """
    nouns = _Nouns(train)
    found = (nouns.kin(prompt) for prompt in heldout)
    return [leak for leak in found if leak is not None]


class _Overlaps:
    """An index of training prompts by their words, to find near-duplicates without a full scan."""

    def __init__(self, train: Sequence[Prompt]) -> None:
        self._known = [(prompt, frozenset(words(prompt.text))) for prompt in train]
        self._exact = {found: prompt for prompt, found in reversed(self._known)}
        self._rare = Counter(word for _, found in self._known for word in found)
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, (_, found) in enumerate(self._known):
            for word in self._telling(found):
                self._places[word].append(place)

    def _telling(self, found: frozenset[str]) -> list[str]:
        """The rarest words of a prompt, one of which any near-duplicate has among its rarest too.

        Near-duplicates share at least 0.8 n of n words. So the first n − ⌈0.8 n⌉ + 1 words of each,
        in one common order, overlap: prefix filtering (Chaudhuri, Ganti, Kaushik, ICDE 2006).
        """
        ordered = sorted(found, key=lambda word: (self._rare[word], word))
        return ordered[: len(ordered) - math.ceil(LEAK_JACCARD * len(ordered) - ROUNDING) + 1]

    def leak(self, prompt: Prompt) -> Leak | None:
        mine = frozenset(words(prompt.text))
        if mine in self._exact:
            return Leak(prompt, self._exact[mine], "the same words", "words")
        for place in sorted(
            {place for word in self._telling(mine) for place in self._places.get(word, ())}
        ):
            other, theirs = self._known[place]
            shared = len(mine & theirs)
            if shared >= LEAK_JACCARD * (len(mine) + len(theirs) - shared) - ROUNDING:
                reason = f"{shared / len(mine | theirs):.0%} of the words in common"
                return Leak(prompt, other, reason, "overlap")
        return None


class _Nouns:
    """An index of training prompts by their nouns: noun → a prompt, and the word it uses."""

    def __init__(self, train: Sequence[Prompt]) -> None:
        self._named: dict[str, tuple[Prompt, str]] = {}  # prompts that use the noun itself
        self._meant: dict[str, tuple[Prompt, str]] = {}  # prompts that use a synonym
        self._kinds: dict[str, tuple[Prompt, str]] = {}  # prompts that name a kind of it
        groups = {"same": self._named, "synonyms": self._meant, "kinds": self._kinds}
        for prompt in train:
            for subject in subjects(prompt.text):
                for noun, relation in subject.relations:
                    if relation in groups:
                        groups[relation].setdefault(noun, (prompt, subject.name))

    def leak(self, prompt: Prompt) -> Leak | None:
        found = list(self._leaks(prompt))
        order: tuple[Disguise, ...] = ("noun", "synonym", "kind")
        return min(found, key=lambda leak: order.index(leak.disguise)) if found else None

    def _leaks(self, prompt: Prompt) -> Iterable[Leak]:
        for subject in subjects(prompt.text):
            for noun, relation in subject.relations:
                if relation == "same" and noun in self._named:
                    yield Leak(prompt, self._named[noun][0], f"the same noun: {noun}", "noun")
                if relation in ("same", "synonyms") and noun in self._meant:
                    other, name = self._meant[noun]
                    yield Leak(prompt, other, f"{name}: another word for {noun}", "synonym")
                if relation == "synonyms" and noun in self._named:
                    reason = f"{subject.name}: another word for {noun}"
                    yield Leak(prompt, self._named[noun][0], reason, "synonym")
                trained = self._named.get(noun) or self._meant.get(noun)
                if relation == "kinds" and trained:
                    yield Leak(prompt, trained[0], f"{subject.name}: a kind of {noun}", "kind")
                if relation in ("same", "synonyms") and noun in self._kinds:
                    other, name = self._kinds[noun]
                    yield Leak(prompt, other, f"{name}: a kind of {noun}", "kind")

    def kin(self, prompt: Prompt) -> Leak | None:
        if self.leak(prompt):
            return None
        for subject in subjects(prompt.text):
            for noun, relation in subject.relations:
                trained = self._named.get(noun) or self._meant.get(noun)
                if relation == "wider" and trained:
                    reason = f"{subject.name}: belongs to {noun}, but has a name of its own"
                    return Leak(prompt, trained[0], reason, "wider")
        return None
