"""The words of the `ocr` reward: which text a prompt asks for, and how far what was read is from it. Pure functions on texts."""

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
    r'(?<![0-9])"([^"]*)"|“([^”]*)”|”([^”]*)”|„([^“”]*)[“”]|«([^»]*)»|»([^«]*)«|「([^」]*)」|『([^』]*)』|＂([^＂]*)＂'
)
"""A straight mark after a digit is taken for inches."""
SINGLE: Final = re.compile(
    r"(?<!\w)'(?=\S)((?:(?!\s').)+?)(?<!\s)'(?!\w)|‘((?:[^’]|’(?=\w))+)’", re.DOTALL
)
"""A mark within a word, or with a space on its inner side, is an apostrophe."""
MARKS: Final = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′´`", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
    }
)
ORDERS: Final = 4  # texts up to which every order is tried


def quoted(text: str) -> tuple[str, ...]:
    """The spans in double quotation marks of any kind, the outermost ones; where there is none, those in single ones.

    "rock 'n' roll" quotes nothing.
    """
    for pattern in (DOUBLE, SINGLE):
        spans = tuple(
            "".join(filter(None, match.groups())).strip() for match in pattern.finditer(text)
        )
        if found := tuple(
            span
            for span in spans
            if letters(span) and (pattern is DOUBLE or span.casefold() != "n")
        ):
            return found
    return ()


def letters(text: str) -> str:
    """What is compared: NFKC, case folded, quotation marks and hyphens made straight, without spaces and invisible characters."""
    folded = unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", text.translate(MARKS)).casefold()
    )
    return "".join(letter for letter in folded if unicodedata.category(letter)[0] not in "CZ")


def wanted(prompt: Prompt) -> tuple[str, ...]:
    """The texts that an image is to show: the metadata's `text`, one or a list, or else what the prompt quotes.

    Raises:
        UnusableAnswer: there is none.
    """
    if (given := prompt.metadata.get("text")) is None:
        if found := quoted(prompt.text):
            return found
        raise UnusableAnswer("the prompt quotes no text, and its metadata has no 'text'")
    texts: tuple[Any, ...] = (
        (given,)
        if isinstance(given, str)
        else tuple(given)
        if isinstance(given, (list, tuple))
        else ()
    )
    if not texts or not all(isinstance(text, str) and letters(text) for text in texts):
        raise UnusableAnswer("the metadata's 'text' is no text and no list of texts")
    return texts


def edit_distance(a: str, b: str) -> int:
    """The least number of letters to insert, delete or replace to make `a` into `b`. Source: Levenshtein, 1966."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
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
    """The score 1 − d / n, not below 0, and its parts; d is the edit distance of all that was read to the target of n letters.

    Every letter beyond the target counts as one edit, wherever it stands: text that is repeated, or surrounded by other text, loses as much
    as text that is misspelt. Several targets count as one text, in whichever order is nearest (five and more: as they are written).

    Args:
        lines: the text read, in reading order.
        targets: texts of one letter or more.
    """
    read, parts = letters("".join(lines)), [letters(target) for target in targets]
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
    """What Flow-GRPO makes of the reading: the first target alone, and full marks wherever it stands in the text.

    Source: yifan123/flow_grpo, its OCR reward.
    """
    read, due = ("".join(text).replace(" ", "").lower() for text in (lines, target))
    return 1.0 if due in read else 1 - min(edit_distance(read, due), len(due)) / len(due)
