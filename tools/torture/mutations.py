"""Damaged and hostile versions of files: bytes, JSON, JSON lines and safetensors headers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["damaged_bytes", "damaged_json", "damaged_lines", "damaged_tensors"]

MARK = "@@raw{}@@"
RAW = (
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 21,
    "9" * 5000,
    "-" + "9" * 19,
    "1" + "0" * 15,
    "[" * 100 + "]" * 100,
    '{"a":' * 70 + "1" + "}" * 70,
    '{"a": 1, "a": 2}',
    '"\\ud800"',
    '"\\u0000"',
    "01",
    "'a'",
    "",
)
"""Texts in place of a value, most of which Python cannot write."""
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3.5,
    -0.0,
    1e308,
    5e-324,
    2**31,
    2**53,
    2**63,
    10**19,
    "",
    " ",
    "0",
    "nan",
    "inf",
    "lora",
    "../../../etc/passwd",
    "/etc/passwd",
    "~root/x",
    "a\nb\x1b[2J",
    "\N{RIGHT-TO-LEFT OVERRIDE}x",
    "x" * 20_000,
    "./x.py:P",
    [],
    {},
    [[]],
    [None],
    [1, "a", None],
    {"": None},
    {"a": {"b": []}},
)
TOKENS = (
    b"[",
    b"{",
    b"}",
    b'"',
    b",",
    b":",
    b"\\",
    b"\\u",
    b"\x00",
    b"\xff",
    b"\r\n",
    b"\n",
    b"\n\n",
    b"NaN",
    b"9" * 25,
    b"1e400",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"null",
    b"-",
)
LONG = (b"[" * 100_000, b'{"a":' * 50_000, b"9" * 100_000, b" " * 1_000_000, b"x" * 1_000_000)


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """The data with flipped bits, a cut, a copied, removed or new piece, or another encoding."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place = chance.randrange(len(found) + 1)
        end = min(len(found), place + chance.choice((1, 2, 8, 64, 1024)))
        kind = chance.randrange(8)
        if kind < 2 and found:
            found[min(place, len(found) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del found[place:]
        elif kind == 3:
            del found[place:end]
        elif kind == 4:
            other = chance.randrange(len(found) + 1)
            found[other:other] = found[place:end]
        elif kind == 5:
            found[place:end] = bytes(end - place)
        elif kind == 6:
            found[place:place] = chance.choice(TOKENS)
        elif chance.random() < 0.02:
            found[place:place] = chance.choice(LONG)
        elif chance.random() < 0.1:
            text = bytes(found).decode("utf-8", "replace")
            found = bytearray(text.encode(chance.choice(("utf-8-sig", "utf-16", "utf-32"))))
    return bytes(found)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each object or list of a JSON value with each of its keys or indices."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else list(range(len(one)))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    return found


def _change(value: Any, chance: random.Random, raw: list[str]) -> None:
    """Changes one place of a JSON value; `raw` takes the texts that replace marks."""
    places = _places(value)
    if not places:
        return
    holder, key = chance.choice(places)
    kind = chance.randrange(10)
    if kind < 4:
        holder[key] = json.loads(json.dumps(chance.choice(VALUES)))
    elif kind == 4:
        holder[key] = MARK.format(len(raw))
        raw.append(chance.choice(RAW))
    elif kind == 5:
        del holder[key]
    elif kind == 6:
        other, place = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[place]))
    elif kind == 7 and isinstance(holder, dict):
        holder[chance.choice(("", "extra", key.upper(), f"{key} "))] = holder.pop(key)
    elif kind == 8 and isinstance(holder[key], list):
        holder[key] = holder[key] * chance.choice((0, 2, 50))
    elif isinstance(holder[key], bool | int | float):
        holder[key] = -holder[key] * chance.choice((1, 2, 1e9, 10**12))
    else:
        holder[key] = [holder[key]]


def _value(data: bytes) -> Any:
    """The value of a JSON text; None if it is damaged already."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def damaged_json(data: bytes, chance: random.Random) -> bytes:
    """A JSON text with some other values, names or texts, or with damaged bytes."""
    value = _value(data) if chance.random() > 0.3 else None
    if not isinstance(value, dict | list):
        return damaged_bytes(data, chance)
    raw: list[str] = []
    for _ in range(chance.choice((1, 1, 2, 5))):
        _change(value, chance, raw)
    text = json.dumps(value)
    for number, other in enumerate(raw):
        text = text.replace(f'"{MARK.format(number)}"', other)
    if chance.random() < 0.05:
        text = text.replace("{", '{"schema": 1, "schema": 2, ', 1)
    return text.encode()


def damaged_lines(data: bytes, chance: random.Random) -> bytes:
    """JSON lines of which some are damaged, repeated, lost or cut short."""
    if chance.random() < 0.2:
        return damaged_bytes(data, chance)
    lines = data.splitlines()
    for _ in range(chance.choice((1, 2))):
        place = chance.randrange(len(lines))
        if chance.random() < 0.2:
            lines[place:place] = [chance.choice(lines), b"", b"[]"][: chance.randrange(4)]
        else:
            lines[place] = damaged_json(lines[place], chance)
    return b"\n".join(lines) + (b"\n" if chance.random() < 0.9 else b"")


def damaged_tensors(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another header, weights that are NaN, or damaged bytes."""
    kind = chance.randrange(4)
    length = int.from_bytes(data[:8], "little")
    if kind == 0:
        return damaged_bytes(data, chance)
    if kind == 1:
        place = 8 + length + 4 * chance.randrange((len(data) - 8 - length) // 4)
        weight = chance.choice((b"\xff\xff\xff\x7f", b"\x00\x00\x80\x7f"))  # NaN or infinity
        return data[:place] + weight + data[place + 4 :]
    header = damaged_json(data[8 : 8 + length].rstrip(), chance)
    size = len(header) if chance.random() < 0.9 else chance.choice((0, 2**40, 2**63, len(data)))
    return size.to_bytes(8, "little") + header + data[8 + length :]


Damage = Callable[[bytes, random.Random], bytes]
