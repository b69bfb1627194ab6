"""JSON and JSON lines of ddpo, read with limits; damage is reported in one line.

Files come from other people and damaged disks. Python's own parser ends in `RecursionError` for
deep nesting, and accepts numbers that no number type of ours can hold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError, UserError

__all__ = [
    "JsonError",
    "JsonLine",
    "check_fields",
    "json_lines",
    "parse_json",
    "parse_record",
    "read_json",
]

MOST_BYTES: Final = 256 << 20  # of a file that is read as a whole; large reports take some MB
MOST_LINE_BYTES: Final = 16 << 20
MOST_DEPTH: Final = 64  # arrays and objects within each other; ours have fewer than ten
MOST_DIGITS: Final = 20  # of an integer; 2⁶⁴ has 20
BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
SHOWN: Final = 40  # characters of a value in an error

Fields = Mapping[str, type | tuple[type, ...]]
"""Names that an object must have, and the types of their values; `float` takes integers too."""


class JsonError(ValueError):
    """Text that is not JSON, or is beyond the limits of ddpo's files."""


@dataclass(frozen=True, slots=True)
class JsonLine:
    """One line of a file of JSON lines."""

    number: int  # 1-based
    end: int  # bytes up to the end of the line
    record: dict[str, Any] | None  # None if the line is damaged
    fault: str = ""  # the damage in words


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, whose numbers must be finite.

    Raises:
        JsonError: the text is not UTF-8, is not JSON, contains NaN or infinity, is nested too
            deeply, or contains a number that is too large.
    """
    return _parsed(text, _refused_constant)


def parse_record(line: str | bytes) -> dict[str, Any]:
    """The object of one JSON line; NaN and infinity are allowed, as in measured values.

    Raises:
        JsonError: as of `parse_json`, or the value is not an object.
    """
    value = _parsed(line, float)
    if not isinstance(value, dict):
        raise JsonError(f"not an object but {_shown(value)}")
    return value


def read_json(
    path: Path, fields: Fields | None = None, error: type[UserError] = CheckpointError
) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        fields: names and types that the object must have.
        error: class of the errors raised.

    Raises:
        UserError: of the class `error`; the file is missing, too large or damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a device or a pipe has no end
            raise error(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as absent:
        raise error(f"{path}: no such file") from absent
    except OSError as failure:
        raise error(f"{path} cannot be read: {failure.strerror}") from failure
    if len(data) > MOST_BYTES:
        raise error(f"{path} is damaged: it has more than {MOST_BYTES >> 20} MiB")
    try:
        value = parse_json(data)
        if not isinstance(value, dict):
            raise JsonError(f"not an object but {_shown(value)}")
        check_fields(value, fields or {})
    except JsonError as damage:
        raise error(f"{path} is damaged: {damage}") from damage
    return value


def json_lines(path: Path, fields: Fields | None = None) -> Iterator[JsonLine]:
    """The lines of a file of JSON lines, with damaged ones, at which a caller stops or not.

    A last line without its end is damaged, since a kill cut it short. A missing file has no lines.

    Args:
        path: the file.
        fields: names and types that each object must have.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return
    if not path.is_file():  # a device or a pipe has no end
        raise CheckpointError(f"{path} is not a file")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES + 1), b""), 1):
            record, fault = _record_or_fault(line, fields or {})
            rest = line
            while len(rest) > MOST_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MOST_LINE_BYTES + 1)
            yield JsonLine(number, file.tell(), record, fault)


def check_fields(values: Mapping[str, Any], fields: Fields) -> None:
    """Compares an object with the fields that it must have.

    Raises:
        JsonError: one is missing or of another type.
    """
    for name, kinds in fields.items():
        if name not in values:
            raise JsonError(f"it has no {name}")
        value = values[name]
        expected = kinds if isinstance(kinds, tuple) else (kinds,)
        if float in expected:
            expected = (*expected, int)
        sound = isinstance(value, expected) and (bool in expected or not isinstance(value, bool))
        if not sound:
            raise JsonError(f"its {name} cannot be {_shown(value)}")


def _record_or_fault(line: bytes, fields: Fields) -> tuple[dict[str, Any] | None, str]:
    """The object of a line, or why there is none."""
    if len(line) > MOST_LINE_BYTES:
        return None, f"longer than {MOST_LINE_BYTES >> 20} MiB"
    if not line.endswith(b"\n"):
        return None, "cut short"
    try:
        record = parse_record(line)
        check_fields(record, fields)
    except JsonError as damage:
        return None, str(damage)
    return record, ""


def _parsed(text: str | bytes, constant: Callable[[str], Any]) -> Any:
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        _check_depth(text)
        value = json.loads(
            text, parse_constant=constant, parse_int=_integer, parse_float=_finite_number
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


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MOST_DEPTH:
        return
    depth = 0
    for match in BRACKETS.finditer(text):
        first = match[0][0]
        depth += (first in "[{") - (first in "]}")
        if depth > MOST_DEPTH:
            raise JsonError(f"nested more than {MOST_DEPTH} deep")


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


def _shown(value: object) -> str:
    """A value on one line, in short."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
