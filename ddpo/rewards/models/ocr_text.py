"""Texts of the `ocr` reward: the text that a prompt quotes, and its distance to the text read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import permutations
from typing import Any, Final

from ddpo.rewards.models.vlm_reward import Judgement
from ddpo.rewards.vlm import UnusableAnswer
from ddpo.types import Prompt

__all__ = ["common_letters", "edit_distance", "letters", "quoted", "spelling", "wanted"]

DOUBLE: Final = re.compile(
    r'(?<![0-9])"([^"]*)"|“([^”]*)”|”([^”]*)”|„([^“”]*)[“”]'
    r"|«([^»]*)»|»([^«]*)«|「([^」]*)」|『([^』]*)』|＂([^＂]*)＂"
)
"""Spans in double quotation marks. A straight mark after a digit stands for inches."""
SINGLE: Final = re.compile(
    r"(?<!\w)'(?=\S)((?:(?!\s').)+?)(?<!\s)'(?!\w)|‘((?:[^’]|’(?=\w))+)’", re.DOTALL
)
"""Spans in single marks. A mark within a word, or beside a space inside, is an apostrophe."""
MARKS: Final = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′´`", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
    }
)
ORDERS: Final = 4  # greatest number of texts of which every order is tried


def quoted(text: str) -> tuple[str, ...]:
    """The outermost spans in double quotation marks of any kind; without any, those in single ones.

    "rock 'n' roll" quotes nothing.
    """
    double = tuple(span for span in _spans(DOUBLE, text) if letters(span))
    if double:
        return double
    single = [span for span in _spans(SINGLE, text) if span.casefold() != "n"]
    return tuple(span for span in single if letters(span))


def _spans(pattern: re.Pattern[str], text: str) -> list[str]:
    return ["".join(filter(None, match.groups())).strip() for match in pattern.finditer(text)]


def letters(text: str) -> str:
    """The text for comparison: NFKC, case folded, straight quotes and hyphens, no spaces.

    Invisible characters are left out too.
    """
    folded = unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", text.translate(MARKS)).casefold()
    )
    return "".join(letter for letter in folded if unicodedata.category(letter)[0] not in "CZ")


def wanted(prompt: Prompt) -> tuple[str, ...]:
    """The texts that an image is to show: `text` of the metadata, or else the prompt's quotations.

    Raises:
        UnusableAnswer: There is none.
    """
    given = prompt.metadata.get("text")
    if given is None:
        if found := quoted(prompt.text):
            return found
        raise UnusableAnswer("the prompt quotes no text, and its metadata has no 'text'")
    texts: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    if not texts or not all(isinstance(text, str) and letters(text) for text in texts):
        raise UnusableAnswer("the metadata's 'text' is neither a text nor a list of texts")
    return tuple(texts)


def edit_distance(a: str, b: str) -> int:
    """The least number of insertions, deletions and replacements that turn `a` into `b`.

    Source: Levenshtein, 1966.
    """
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before = row[0]
        row[0] = i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


def common_letters(a: str, b: str) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for letter in a:
        before = 0
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if letter == other else max(row[j], row[j - 1])
    return row[-1]


def spelling(lines: Sequence[str], targets: Sequence[str]) -> Judgement:
    """The score 1 − d / n, not below 0, and its parts.

    d is the edit distance between all text read and the target of n letters. Every letter beyond
    the target counts as one edit, wherever it stands: repeated or surrounding text loses as much as
    misspelt text. Several targets count as one text in the nearest order; five or more in the order
    of the prompt.

    Args:
        lines: lines of text, in reading order.
        targets: texts of at least one letter.
    """
    read = letters("".join(lines))
    parts = [letters(target) for target in targets]
    orders = (
        {"".join(order) for order in permutations(parts)}
        if len(parts) <= ORDERS
        else {"".join(parts)}
    )
    distance, target = min((edit_distance(read, order), order) for order in orders)
    return {
        "score": 1 - min(distance, len(target)) / len(target),
        "exact": float(read == target),
        "distance": float(distance),
        "extra": float(len(read) - common_letters(read, target)),
        "flow_grpo": _flow_grpo(lines, targets[0]),
    }


def _flow_grpo(lines: Sequence[str], target: str) -> float:
    """Flow-GRPO's score of the text read: the first target alone, and 1 if it occurs anywhere.

    Source: yifan123/flow_grpo, its OCR reward.
    """
    read, due = ("".join(text).replace(" ", "").lower() for text in (lines, target))
    return 1.0 if due in read else 1 - min(edit_distance(read, due), len(due)) / len(due)
