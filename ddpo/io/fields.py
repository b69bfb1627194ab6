"""Kinds of values in ddpo's own JSON, and the first value of an object that has another kind.

A type stands for its instances: `float` takes integers too, `object` takes all, and otherwise only
`bool` takes booleans. A tuple of kinds is an alternative, and a mapping an object with fields.
Other names of an object may have any value, since later versions add some.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

__all__ = [
    "COUNT",
    "DIGEST",
    "FILE_NAME",
    "NAME",
    "SHORT",
    "Fields",
    "Items",
    "Kind",
    "ListOf",
    "MapOf",
    "Maybe",
    "Real",
    "Text",
    "Whole",
    "fault_of",
    "shown",
]

MOST_WHOLE: Final = 2**53 - 1  # the largest number below which JSON readers agree on integers
SHOWN: Final = 40  # characters of a value in an error
SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer from `low` to `high`."""

    low: int = 0
    high: int = MOST_WHOLE

    def accepts(self, value: object) -> bool:
        """True for such a value."""
        return type(value) is int and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number from `low` to `high`."""

    low: float = -math.inf
    high: float = math.inf

    def accepts(self, value: object) -> bool:
        """True for such a value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Text:
    """A text of at most `longest` characters that a test accepts, if there is one."""

    longest: int = 1 << 20
    test: Callable[[str], object] | None = None

    def accepts(self, value: object) -> bool:
        """True for such a value."""
        if not isinstance(value, str) or len(value) > self.longest:
            return False
        return self.test is None or bool(self.test(value))


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of values of one kind."""

    kind: Kind
    shortest: int = 0
    longest: int = MOST_WHOLE


@dataclass(frozen=True, slots=True)
class Items:
    """A list of fixed length, with a kind for each item."""

    kinds: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with any names, of values of one kind; the names are of the kind `names`."""

    kind: Kind
    names: Text | None = None
    fewest: int = 0


@dataclass(frozen=True, slots=True)
class Maybe:
    """A field that may be missing or null, and else is of one kind."""

    kind: Kind


Kind = (
    type
    | tuple[Any, ...]
    | Mapping[str, Any]
    | Whole
    | Real
    | Text
    | ListOf
    | Items
    | MapOf
    | Maybe
)
Fields = Mapping[str, Kind]
"""Names that an object must have, and the kinds of their values."""


def _stays_inside(name: str) -> bool:
    """True for a printable relative path that cannot leave its folder, here or on Windows."""
    if not PurePosixPath(name).parts or not name.isprintable():
        return False
    paths = (PurePosixPath(name), PureWindowsPath(name))
    return not any(path.anchor or ".." in path.parts for path in paths)


COUNT: Final = Whole()
SHORT: Final = Text(10_000, lambda text: "\0" not in text)
"""A word, path or line."""
NAME: Final = Text(255, lambda name: _stays_inside(name) and "/" not in name)
"""The name of a file or folder."""
FILE_NAME: Final = Text(4096, _stays_inside)
"""A path that stays in its folder."""
DIGEST: Final = Text(64, SHA256.fullmatch)
"""SHA-256 in hexadecimal digits."""


def fault_of(value: object, kind: Kind, name: str = "") -> str:
    """The first fault of a value, such as "it has no iteration"; "" if it is of its kind.

    Args:
        value: The value, from JSON.
        kind: The kind that it must have.
        name: Name of the value; "" for the whole.
    """
    if isinstance(kind, Maybe):
        return "" if value is None else fault_of(value, kind.kind, name)
    if isinstance(kind, Mapping):
        return _object_fault(value, kind, name)
    if isinstance(kind, ListOf | Items):
        return _list_fault(value, kind, name)
    if isinstance(kind, MapOf):
        return _map_fault(value, kind, name)
    if isinstance(kind, tuple):
        sound = any(not fault_of(value, one, name) for one in kind)
        return "" if sound else _wrong(value, name)
    if kind is object:
        return ""
    if isinstance(kind, type):
        sound = isinstance(value, kind) or (kind is float and isinstance(value, int))
        sound = sound and (kind is bool or not isinstance(value, bool))
        return "" if sound else _wrong(value, name)
    return "" if kind.accepts(value) else _wrong(value, name)


def shown(value: object) -> str:
    """A value on one line, in short."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _wrong(value: object, name: str) -> str:
    return f"its {name} cannot be {shown(value)}" if name else f"it cannot be {shown(value)}"


def _object_fault(value: object, fields: Fields, name: str) -> str:
    if not isinstance(value, Mapping):
        return _wrong(value, name)
    for key, kind in fields.items():
        place = f"{name}.{key}" if name else key
        if key in value:
            if fault := fault_of(value[key], kind, place):
                return fault
        elif not isinstance(kind, Maybe):
            return f"it has no {place}"
    return ""


def _list_fault(value: object, kind: ListOf | Items, name: str) -> str:
    if not isinstance(value, list):
        return _wrong(value, name)
    if isinstance(kind, Items):
        sound = len(value) == len(kind.kinds)
        kinds: Iterable[Kind] = kind.kinds
    else:
        sound = kind.shortest <= len(value) <= kind.longest
        kinds = itertools.repeat(kind.kind)
    if not sound:
        return _wrong(value, name)
    for place, (item, one) in enumerate(zip(value, kinds, strict=False)):
        if fault := fault_of(item, one, f"{name}[{place}]"):
            return fault
    return ""


def _map_fault(value: object, kind: MapOf, name: str) -> str:
    if not isinstance(value, Mapping) or len(value) < kind.fewest:
        return _wrong(value, name)
    for key, item in value.items():
        if kind.names is not None and not kind.names.accepts(key):
            return f"its {name} cannot have the name {shown(key)}"
        if fault := fault_of(item, kind.kind, f"{name}.{shown(key)}"):
            return fault
    return ""
