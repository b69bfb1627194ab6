"""Rows of JSON: a list, one object per line, consecutive objects, or one object as a table.

Python's parser accepts more than JSON: NaN, repeated keys, numbers beyond float64 and halves of
surrogate pairs. Other readers differ on them, so they are errors here, with their line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from ddpo.errors import ConfigError
from ddpo.inputs.text import numbered_lines, read_text
from ddpo.text import shortened

__all__ = ["parse_json", "read_json", "read_json_lines"]

MAX_DEPTH: Final = 64  # of nested lists and objects
WHITESPACE: Final = " \t\r\n"
WRAPPERS: Final = frozenset(
    ("annotations", "data", "examples", "images", "items", "prompts", "records", "rows", "samples")
)
"""Keys of the table in an object with a single table."""

Entry = Mapping[str, Any] | str


def read_json_lines(path: Path) -> Iterator[tuple[str, Entry]]:
    """The objects of JSON lines, one in memory at a time; other JSON is read by `read_json`.

    Raises:
        ConfigError: A line is no object; the message names the line.
    """
    lines = ((number, line) for number, line in numbered_lines(path) if not line.isspace())
    first = next(lines, None)
    if first is None:
        return
    if not _is_whole_object(first[1]):
        yield from read_json(path)
        return
    yield _row(path, *first)
    for number, line in lines:
        yield _row(path, number, line)


def _row(path: Path, number: int, line: str) -> tuple[str, Entry]:
    where = f"{path}:{number}"
    value = parse_json(line, where)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: not a JSON object, but {shortened(repr(value))}")
    return where, value


def _is_whole_object(line: str) -> bool:
    """False for the first line of a list or of an indented object."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        json.JSONDecoder().raw_decode(line.strip())
    except json.JSONDecodeError as error:
        return error.pos < len(line.strip())  # an error before the end of the line
    except (ValueError, RecursionError):
        return True
    return True


def read_json(path: Path) -> Iterator[tuple[str, Entry]]:
    """The entries of a JSON text: a list, an object, or consecutive objects.

    Raises:
        ConfigError: The text is no JSON or no table; the message names the line.
    """
    text = _Text(path, read_text(path))
    if text.next == "[":
        yield from _list_items(text)
        return
    entries: list[tuple[str, dict[str, Any]]] = []
    while text.next:
        where = text.where
        value = text.value()
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: not a JSON object, but {shortened(repr(value))}")
        entries.append((where, value))
    yield from _object_rows(*entries[0]) if len(entries) == 1 else entries


class _Text:
    """A JSON text read value by value, with the line number of the next value."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._place = 0
        self._number = 1
        self._move(0)

    @property
    def next(self) -> str:
        """The next character that is no whitespace; "" at the end."""
        return self._text[self._place : self._place + 1]

    @property
    def where(self) -> str:
        return self._where(self._place)

    def skip(self) -> None:
        """Skips the next character."""
        self._move(self._place + 1)

    def value(self) -> Any:
        """Reads the next value."""
        value, end = _decoded(self._text, self._place, self._where)
        self._move(end)
        return value

    def _where(self, place: int) -> str:
        return f"{self._path}:{self._number + self._text.count(chr(10), self._place, place)}"

    def _move(self, place: int) -> None:
        while self._text[place : place + 1] and self._text[place] in WHITESPACE:
            place += 1
        self._number += self._text.count("\n", self._place, place)
        self._place = place


def _list_items(text: _Text) -> Iterator[tuple[str, Entry]]:
    text.skip()
    while text.next != "]":
        where = text.where
        value = text.value()
        if not isinstance(value, dict | str):
            raise ConfigError(f"{where}: not a JSON object, but {shortened(repr(value))}")
        yield where, value
        if text.next == ",":
            text.skip()
            if text.next == "]":
                raise ConfigError(f"{text.where}: not JSON (a comma before the end of the list)")
        elif text.next != "]":
            raise ConfigError(f"{text.where}: not JSON (expected a comma or the end of the list)")
    text.skip()
    if text.next:
        raise ConfigError(f"{text.where}: not JSON (text after the end of the list)")


def _object_rows(where: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """The rows of one object: of its table ("data": [...]), of its columns, or itself."""
    tables = {key: found for key, found in value.items() if _is_table(found)}
    if tables and set(tables) <= WRAPPERS:
        if len(tables) > 1:
            names = ", ".join(tables)
            raise ConfigError(f"{where}: several tables ({names}); keep one of them in the file")
        yield from ((f"{where} ({key})", row) for key, rows in tables.items() for row in rows)
    elif value and all(isinstance(found, list) for found in value.values()):
        yield from _column_rows(where, value)
    elif value and all(isinstance(found, dict) for found in value.values()):
        raise ConfigError(
            f"{where}: an object of objects; a table is a list with an object per row"
        )
    else:
        yield where, value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _column_rows(where: str, columns: Mapping[str, list[Any]]) -> Iterator[tuple[str, Entry]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"{where}: columns of different length: {shortened(repr(lengths), 200)}")
    for place, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield f"{where} (row {place})", dict(zip(columns, values, strict=True))


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Args:
        text: JSON, perhaps with surrounding whitespace.
        where: Place of the text in messages.

    Raises:
        ConfigError: The text is no JSON, is nested too deeply, or has invalid characters.
    """
    text = text.strip()
    value, end = _decoded(text, 0, lambda _: where)
    if end < len(text):
        raise ConfigError(f"{where}: not JSON (text after the end of the value)")
    return value


def _decoded(text: str, place: int, where: Callable[[int], str]) -> tuple[Any, int]:
    """The JSON value at `place` and the place after it; `where` names a place for messages."""
    try:
        value, end = DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where(error.pos)}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise ConfigError(f"{where(place)}: JSON that is nested too deeply") from error
    except ValueError as error:  # from the hooks, or a number with thousands of digits
        raise ConfigError(f"{where(place)}: {shortened(str(error), 100)}") from error
    nested = text.count("[", place, end) + text.count("{", place, end) > MAX_DEPTH
    if nested or text.find("\\u", place, end) >= 0:
        _check(value, where(place))
    return value, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"the key {shortened(twice)!r} appears twice in one object")
    return found


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"not JSON ({token} is no number of JSON)")


def _finite(token: str) -> float:
    if math.isinf(number := float(token)):
        raise ValueError(f"the number {token} is too large")
    return number


DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)


def _check(value: Any, where: str) -> None:
    """Raises for deep nesting, NUL characters and halves of surrogate pairs.

    Raises:
        ConfigError: The value has one of them.
    """
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, str):
            _check_characters(one, where)
            continue
        if isinstance(one, dict | list) and depth > MAX_DEPTH:
            raise ConfigError(f"{where}: JSON that is nested too deeply")
        if isinstance(one, dict):
            waiting += [(key, depth) for key in one]
            one = [*one.values()]
        if isinstance(one, list):
            waiting += [(part, depth + 1) for part in one]


def _check_characters(text: str, where: str) -> None:
    for character in text:
        code = f"\\u{ord(character):04x}"
        if character == "\0":
            raise ConfigError(f"{where}: a NUL character ({code})")
        if "\ud800" <= character <= "\udfff":
            raise ConfigError(f"{where}: half a surrogate pair ({code}), such as half an emoji")
