"""Text for people: shortened lines, lists in words, percentages, sizes and durations."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

__all__ = [
    "REDACTED",
    "as_utf8",
    "byte_size",
    "capital",
    "count",
    "duration",
    "facts_html",
    "is_secret_name",
    "listed",
    "percent",
    "printable",
    "shortened",
    "shortened_middle",
    "shortest_number",
    "shown_value",
    "single_line",
    "without_controls",
    "without_secrets",
]

LONGEST_FACT: Final = 1000  # characters of a fact in a notebook
BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")
CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline; C1
    r"\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f\ud800-\udfff]"
)
"""Characters that steer a terminal, reverse the order of a text, or are invisible or no text.

The joiners of Arabic and of emoji (U+200C, U+200D) are none of them.
Source: Unicode Technical Report 36, Unicode Security Considerations, section 2.5.
"""
REDACTED: Final = "***"
"""The text in place of a secret."""
OWNERS: Final = (
    "(?:api|access|auth|bearer|client|hf|hub|id|my|openai|private|refresh|reward|server)"
)
SECRET_WORDS: Final = (
    rf"(?:(?:\w+[_-])?(?:api[_-]?key|access[_-]?key|secret(?:[_-]key)?|password|passwd|passphrase)"
    rf"|(?:{OWNERS}[_-])?token|(?:\w+[_-])?credentials?|authorization|bearer)"
)
"""Names of options that hold a secret; numbers and words of a tokenizer, `max_tokens`, do not."""
SECRET_NAME: Final = re.compile(SECRET_WORDS, re.IGNORECASE)
SECRET_VALUE: Final = re.compile(
    rf"(?<![\w-])({SECRET_WORDS}\s*=\s*)(?!None\b|…)[^,&\s'\"|)]+", re.IGNORECASE
)
SECRET_IN_QUERY: Final = re.compile(
    r"([?&][\w-]*(?:key|sig|signature|auth|code|token|secret|password)=)[^&#,\s'\"|)]+",
    re.IGNORECASE,
)
USER_IN_ADDRESS: Final = re.compile(r"(\w://)[^/\s@'\"]+@")
BEARER: Final = re.compile(r"(\bBearer\s+)[\w.~+/=-]{6,}")


def printable(name: str) -> str:
    """A file name as printable text on one line.

    Control characters and bytes that are not UTF-8 become backslash escapes.
    """
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def without_controls(text: str) -> str:
    """The text with each character of `CONTROLS` as a backslash escape; tabs and newlines stay."""
    return CONTROLS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def single_line(text: str) -> str:
    """The text with every run of white space, line breaks included, as one space."""
    return " ".join(text.split())


def is_secret_name(name: str) -> bool:
    """True for the name of an option whose value must not be shown or stored."""
    return bool(SECRET_NAME.fullmatch(name.strip()))


def without_secrets(text: str) -> str:
    """The text with `***` for tokens, passwords and keys in options, addresses and headers."""
    if "=" in text:
        text = SECRET_VALUE.sub(rf"\1{REDACTED}", text)
        text = SECRET_IN_QUERY.sub(rf"\1{REDACTED}", text)
    if "@" in text:
        text = USER_IN_ADDRESS.sub(rf"\1{REDACTED}@", text)
    return BEARER.sub(rf"\1{REDACTED}", text) if "Bearer" in text else text


def shown_value(name: str, value: Any) -> Any:
    """The value of an option as it may be shown and stored: without secrets.

    Args:
        name: Name of the option.
        value: Its value; None and numbers are no secrets.
    """
    if not isinstance(value, str) or not value:
        return value
    return REDACTED if is_secret_name(name) else without_secrets(value)


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """A heading and an HTML table of facts, without those that are empty."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(shortened(str(value), LONGEST_FACT))}</td></tr>"
        for name, value in facts.items()
        if value not in ("", None)
    )
    return f"<b>{escape(shortened(title, LONGEST_FACT))}</b><table>{rows}</table>"


def shortened(text: str, length: int = 60) -> str:
    """The text on one line, cut to `length` characters; "…" marks the cut."""
    start = text[: 4 * length]  # a text of many megabytes costs no time
    line = single_line(start)
    if len(line) <= length and len(start) == len(text):
        return line
    return line[:length].rstrip() + "…"


def shortened_middle(text: str, start: int = 60, end: int = 30) -> str:
    """The text on one line; of a long one only the first `start` and the last `end` characters."""
    line = single_line(text)
    if len(line) <= start + end + len(" … "):
        return line
    return f"{line[:start]} … {line[-end:]}"


def listed(items: Sequence[str]) -> str:
    """The items as an English list: "A, B and C"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless the number is 1: "2 batches"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('ch') else 's'}"


def capital(sentence: str) -> str:
    """The sentence with its first letter as a capital, and all others as they are."""
    return sentence[:1].upper() + sentence[1:]


def percent(share: float, decimals: int = 0, space: str = " ") -> str:
    """A share in percent, with a true minus sign; "–" for NaN.

    Args:
        share: Share, where 1 is 100 %.
        decimals: Number of digits after the decimal point.
        space: Text between the number and the percent sign.
    """
    if math.isnan(share):
        return "–"
    return f"{share * 100:.{decimals}f}{space}%".replace("-", "−")


def shortest_number(value: float) -> str:
    """The shortest text that reads back as exactly this number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def byte_size(size: float) -> str:
    """A number of bytes in decimal units: "25.3 GB"."""
    place = 0
    while size >= 1000 and place < len(BYTE_UNITS) - 1:
        size /= 1000
        place += 1
    return f"{size:.{0 if place == 0 else 1}f} {BYTE_UNITS[place]}"


def duration(seconds: float) -> str:
    """A time in seconds, minutes (from 90 s) or hours (from 90 minutes): "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def as_utf8(text: str) -> str:
    """A text of the command line, whose bytes are read as UTF-8 in every locale.

    Names of files stay as Python gives them, because it encodes them the same way again.
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text
