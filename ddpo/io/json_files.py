"""JSON and JSON lines of ddpo, read with limits; damage is reported in one line.

Files come from other people and damaged disks. Python's own parser ends in `RecursionError` for
deep nesting, and accepts numbers that no number type of ours can hold. The kinds of values are in
`ddpo.io.fields`.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError, UserError
from ddpo.io.atomic import printable
from ddpo.io.fields import SHOWN, Fields, Kind, fault_of, shown
from ddpo.text import count

__all__ = [
    "JsonError",
    "JsonLine",
    "check_fields",
    "json_lines",
    "parse_foreign",
    "parse_json",
    "parse_record",
    "read_foreign_json",
    "read_json",
    "say_once",
    "warn_of_damage",
]

MOST_BYTES: Final = 128 << 20  # of a file that is read as a whole; large reports take some MB
MOST_LINE_BYTES: Final = 16 << 20
MOST_VALUES: Final = 4_000_000  # which take up to 1 GB
MOST_DEPTH: Final = 64  # arrays and objects within each other; ours have fewer than ten
MOST_DIGITS: Final = 20  # of an integer; 2⁶⁴ has 20
MARKS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},]', re.DOTALL)
"""Texts, brackets and commas."""
NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
CUT_SHORT: Final = "cut short"
NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)  # a named pipe would wait for a writer

Pairs = Callable[[list[tuple[str, Any]]], dict[str, Any]]


LOGGER: Final = logging.getLogger("ddpo")
MOST_SAID: Final = 1000
_said: set[str] = set()


class JsonError(ValueError):
    """Text that is not JSON, or is beyond the limits of ddpo's files."""


@dataclass(frozen=True, slots=True)
class JsonLine:
    """One line of a file of JSON lines."""

    number: int  # 1-based
    end: int  # bytes up to the end of the line
    record: dict[str, Any] | None  # None if the line is damaged
    fault: str = ""  # the damage in words

    @property
    def cut_short(self) -> bool:
        """True for a last line without its end, as a kill of its writer leaves it."""
        return self.fault == CUT_SHORT


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, whose numbers must be finite.

    Raises:
        JsonError: the text is not UTF-8, is not JSON, contains NaN or infinity, repeats a name,
            is nested too deeply, or contains too many values or too large a number.
    """
    return _parsed(text, _refused_constant, _unique)


def parse_record(line: str | bytes) -> dict[str, Any]:
    """The object of one JSON line; NaN and infinity are allowed, as in measured values.

    Raises:
        JsonError: as of `parse_json`, or the value is not an object.
    """
    return _as_object(_parsed(line, float, _unique))


def parse_foreign(text: str | bytes) -> Any:
    """The value of a JSON text of another program, as Python writes and reads JSON.

    NaN and infinity are allowed, and the last of several equal names counts.

    Raises:
        JsonError: the text is beyond the limits of `parse_json`.
    """
    return _parsed(text, float, None)


def read_json(
    path: Path, fields: Fields | None = None, error: type[UserError] = CheckpointError
) -> dict[str, Any]:
    """The object in a JSON file of ddpo.

    Args:
        path: the file.
        fields: names and kinds that the object must have.
        error: class of the errors raised.

    Raises:
        UserError: of the class `error`; the file is missing, too large or damaged.
    """
    return _read(path, fields or {}, error, _parse_file)


def read_foreign_json(
    path: Path, fields: Fields | None = None, error: type[UserError] = CheckpointError
) -> dict[str, Any]:
    """The object in a JSON file of another program; arguments and errors as of `read_json`."""
    return _read(path, fields or {}, error, parse_foreign)


def json_lines(path: Path, fields: Fields | None = None, start: int = 0) -> Iterator[JsonLine]:
    """The lines of a file of JSON lines, with damaged ones, at which a caller stops or not.

    A last line without its end is damaged, since a kill cut it short. A missing file has no lines.

    Args:
        path: the file.
        fields: names and kinds that each object must have.
        start: bytes before the first line that is read; lines are numbered from there.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        file.seek(start)
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES + 1), b""), 1):
            record, fault = _record_or_fault(line, fields or {})
            rest = line
            while len(rest) > MOST_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MOST_LINE_BYTES + 1)
            yield JsonLine(number, file.tell(), record, fault)


def check_fields(values: object, fields: Kind) -> None:
    """Compares a value with the kind that it must have, such as an object with its fields.

    Raises:
        JsonError: a field is missing or of another kind.
    """
    if fault := fault_of(values, fields):
        raise JsonError(fault)


def warn_of_damage(path: Path, damaged: Sequence[JsonLine], consequence: str) -> None:
    """Warns of damaged lines that were left out.

    Args:
        path: the file.
        damaged: the damaged lines; no warning without any.
        consequence: what follows, such as "their images are scored again".
    """
    if damaged:
        first = damaged[0]
        lines = f"line {first.number} is damaged ({first.fault}) and left out"
        if len(damaged) > 1:
            lines = (
                f"{count(len(damaged), 'line')} are damaged and left out, the first is line "
                f"{first.number} ({first.fault})"
            )
        say_once(f"{path}: {lines}; {consequence}")


def say_once(text: str) -> None:
    """Logs a line about damage as a warning, unless this process did so before."""
    if text not in _said:
        if len(_said) >= MOST_SAID:
            _said.clear()
        _said.add(text)
        LOGGER.warning("%s", printable(text))


def _parse_file(data: bytes) -> Any:
    """As `parse_json`, without NUL characters, which no name of a file can have."""
    value = parse_json(data)
    if b"\\u0000" in data and NUL.search(data):
        raise JsonError("a text has a NUL character in it")
    return value


def _read(
    path: Path, fields: Fields, error: type[UserError], parse: Callable[[bytes], Any]
) -> dict[str, Any]:
    try:
        data = _bytes_of(path)
    except FileNotFoundError as absent:
        raise error(f"{path}: no such file") from absent
    except OSError as failure:
        raise error(f"{path} cannot be read: {failure.strerror}") from failure
    except ValueError as failure:  # the name has a NUL character
        raise error(f"{path!r} cannot be read: {failure}") from failure
    if len(data) > MOST_BYTES:
        raise error(f"{path} is damaged: it has more than {MOST_BYTES >> 20} MiB")
    try:
        value = _as_object(parse(data))
        check_fields(value, fields)
    except JsonError as damage:
        raise error(f"{path} is damaged: {damage}") from damage
    return value


def _bytes_of(path: Path) -> bytes:
    """The first bytes of a file, one more than are parsed."""
    with open(os.open(path, os.O_RDONLY | NO_WAIT), "rb") as file:
        if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return file.read(MOST_BYTES + 1)


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise JsonError(f"not an object but {shown(value)}")
    return value


def _record_or_fault(line: bytes, fields: Fields) -> tuple[dict[str, Any] | None, str]:
    """The object of a line, or why there is none."""
    if len(line) > MOST_LINE_BYTES:
        return None, f"longer than {MOST_LINE_BYTES >> 20} MiB"
    if not line.endswith(b"\n"):
        return None, CUT_SHORT
    try:
        record = parse_record(line)
        check_fields(record, fields)
    except JsonError as damage:
        return None, str(damage)
    return record, ""


def _parsed(text: str | bytes, constant: Callable[[str], Any], pairs: Pairs | None) -> Any:
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        _check_size(text)
        value = json.loads(
            text,
            parse_constant=constant,
            parse_int=_integer,
            parse_float=_finite_number,
            object_pairs_hook=pairs,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start + 1} is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise JsonError("a text has half a character in it") from error
    except (ValueError, RecursionError) as error:
        raise JsonError(" ".join(str(error).split())) from error
    return value


def _check_size(text: str) -> None:
    """Raises `JsonError` for a text of too many values or levels, without parsing it."""
    brackets = text.count("[") + text.count("{")
    if brackets <= MOST_DEPTH and brackets + text.count(",") <= MOST_VALUES:
        return
    depth = 0
    values = 0
    for match in MARKS.finditer(text):
        first = match[0][0]
        depth += (first in "[{") - (first in "]}")
        values += first in "[{,"
        if depth > MOST_DEPTH:
            raise JsonError(f"nested more than {MOST_DEPTH} deep")
        if values > MOST_VALUES:
            raise JsonError(f"it has more than {MOST_VALUES:,} values")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = Counter(name for name, _ in pairs)
        ((twice, _),) = names.most_common(1)
        raise JsonError(f"it has the name {shown(twice)} twice")
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise JsonError(f"the number {text[:MOST_DIGITS]}… has more than {MOST_DIGITS} digits")
    return int(text)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"the number {text[:SHOWN]} is too large")
    return value


def _refused_constant(text: str) -> Any:
    raise JsonError(f"{text} is not JSON")
