"""The nouns of a prompt, with their synonyms and kinds from the table `lists/kinds.toml`.

A simple rule finds the noun without a parser: the last word before the first preposition, verb in
-ing or comma. Where the rule errs, it errs alike for training and held-out prompts.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

__all__ = ["Relation", "Subject", "singular", "subjects", "words"]

Relation = Literal["same", "synonyms", "kinds", "wider"]


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES: Final = frozenset({"a", "an", "the"})
PHOTOS: Final = frozenset(("photo", "photograph", "picture", "image", "shot", "view", "closeup"))
OF_WHAT: Final = PHOTOS | _word_set("""
    painting drawing portrait sketch illustration rendering render
    herd flock pack swarm school group pair bunch
""")
"""Words that only introduce the noun after "of"."""
ENDS: Final = _word_set("""
    on in at with without under over near by of from to into onto beside behind before above
    below among between through during against around next inside outside along across
    beneath as for while who that which is are has have
""")
"""Words that end a noun phrase."""
NO_VERBS: Final = _word_set("""
    king ring wing thing string spring swing sling duckling gosling starling sapling
    nestling fledgling dumpling building painting ceiling pudding wedding earring clothing
    lightning evening morning herring viking icing bunting darling railing
""")
IRREGULAR: Final = {
    "mice": "mouse",
    "geese": "goose",
    "oxen": "ox",
    "feet": "foot",
    "teeth": "tooth",
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "wolves": "wolf",
    "calves": "calf",
    "knives": "knife",
    "leaves": "leaf",
    "elves": "elf",
    "loaves": "loaf",
    "shelves": "shelf",
    "scarves": "scarf",
    "canoes": "canoe",
    "oboes": "oboe",
}
PARTS: Final = re.compile(
    r"[,;.:|()\n]|\band (?=(?:a|an|the|two|three|some)\b)|\b(?:to the )?(?:left|right) of\b"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject of a prompt."""

    name: str  # singular, reduced to the words in the table
    relations: tuple[tuple[str, Relation], ...]  # nouns with their relation; first the name itself


def words(text: str) -> list[str]:
    """The words of a text in lower case and singular, without articles and 's.

    A text without letters and digits is one word.
    """
    found = re.findall(r"\w+(?:'\w+)?", text.lower().replace("’", "'"))
    kept = [singular(word.removesuffix("'s")) for word in found if word not in ARTICLES]
    return kept or [text.strip()]


def singular(word: str) -> str:
    """The singular of an English noun in lower case, by its ending.

    Other words may lose an s, but always in the same way.
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zzes", "ches", "shes")) or (
        word.endswith("uses") and not word.endswith("ouses")
    ):
        return word[:-2]
    if len(word) > 5 and word.endswith("oes"):
        return word[:-2]
    plural = (
        len(word) > 3
        and word.endswith("s")
        and not word.endswith("ss")
        and not (len(word) > 4 and word.endswith("us"))
    )
    return word[:-1] if plural else word


def subjects(text: str) -> tuple[Subject, ...]:
    """The subjects of a prompt: its first noun, and further known ones.

    The latter stand after a comma, "and", "left of" or "right of".
    """
    found: dict[str, Subject] = {}
    for part in PARTS.split(text.lower()):
        subject, known = _subject(_phrase(part))
        if subject is not None and (known or not found):
            found.setdefault(subject.name, subject)
    return tuple(found.values())


def _phrase(part: str) -> list[str]:
    """The words of a part of a prompt up to its noun, in the singular."""
    taken = re.findall(r"\w+(?:'\w+)?", part.replace("’", "'"))
    for place, (word, after) in enumerate(zip(taken, taken[1:], strict=False)):
        if word in OF_WHAT and after == "of":
            taken = taken[place + 2 :]
            break
    phrase: list[str] = []
    for word, after in zip(taken, [*taken[1:], ""], strict=False):
        if word in ARTICLES:
            continue
        verb = bool(phrase) and word.endswith("ing") and (word not in NO_VERBS or after in ARTICLES)
        if verb or word in ENDS:
            if len(phrase) > 1 and len(phrase[-1]) > 5 and phrase[-1].endswith("ed"):
                phrase.pop()  # "a castle surrounded by"
            break
        phrase.append(singular(word.removesuffix("'s")))
    return phrase


def _subject(phrase: list[str]) -> tuple[Subject | None, bool]:
    """The longest ending of a phrase in the table, else its last word; and True if in the table."""
    table = _table()
    for start in range(len(phrase)):
        name = " ".join(phrase[start:])
        if name in table:
            return table[name], True
    if not phrase:
        return None, False
    return Subject(phrase[-1], ((phrase[-1], "same"),)), False


@cache
def _table() -> dict[str, Subject]:
    """Name → subject with its relations, from the table of kinds."""
    kinds = files("ddpo.prompts") / "lists" / "kinds.toml"
    record = tomllib.loads(kinds.read_text(encoding="utf-8"))
    relations: dict[str, list[tuple[str, Relation]]] = {noun: [] for noun in record}
    how: tuple[Relation, ...] = ("synonyms", "kinds", "wider")
    for noun, facts in record.items():
        for name in facts.get("not", ()):
            relations.setdefault(_key(name), [])
        for relation in how:
            for name in facts.get(relation, ()):
                relations.setdefault(_key(name), []).append((noun, relation))
    return {name: Subject(name, ((name, "same"), *others)) for name, others in relations.items()}


def _key(name: str) -> str:
    return " ".join(singular(word) for word in name.split())
