"""Dataclasses from plain JSON values, checked against the types of their fields."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

from ddpo.io.fields import fault_of, shown
from ddpo.io.json_files import JsonError

__all__ = ["record_of"]

T = TypeVar("T")
Number = Callable[[Any, str], float]
UNIONS: Final = (types.UnionType, typing.Union)


def _plain_number(value: Any, name: str) -> float:
    if fault := fault_of(value, float, name):
        raise JsonError(fault)
    number: float = value
    return number


def record_of(kind: type[T], values: Any, number: Number = _plain_number) -> T:
    """An instance of a dataclass, whose fields may be dataclasses, tuples and mappings in turn.

    Args:
        kind: the dataclass.
        values: object of JSON; fields with a default may be missing, and other names are ignored.
        number: function of a value and its name that returns the value of a field of type float.

    Raises:
        JsonError: a field is missing or of another type.
    """
    result: T = _record(kind, values, "", number)
    return result


def _value(hint: Any, value: Any, name: str, number: Number) -> Any:
    origin = typing.get_origin(hint)
    if hint is float:
        return number(value, name)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, name, number)
    if origin in (tuple, Mapping):
        return _many(hint, value, name, number)
    if origin in UNIONS:
        return _one_of(typing.get_args(hint), value, name, number)
    if origin is Literal:
        sound = type(value) is str and value in typing.get_args(hint)
    else:
        sound = hint is Any or not fault_of(value, hint)
    if not sound:
        raise _wrong(value, name)
    return value


def _record(hint: Any, value: Any, name: str, number: Number) -> Any:
    """An instance of a dataclass from an object of JSON."""
    if not isinstance(value, Mapping):
        raise _wrong(value, name)
    arguments: dict[str, Any] = {}
    for field, kind, needed in _fields(hint):
        place = f"{name}.{field}" if name else field
        if field in value:
            arguments[field] = _value(kind, value[field], place, number)
        elif needed:
            raise JsonError(f"it has no {place}")
    return hint(**arguments)


@functools.cache
def _fields(hint: Any) -> list[tuple[str, Any, bool]]:
    """Name and type of each field, and True for one that has no default."""
    hints = typing.get_type_hints(hint)
    missing = dataclasses.MISSING
    return [
        (field.name, hints[field.name], field.default is field.default_factory is missing)
        for field in dataclasses.fields(hint)
    ]


def _many(hint: Any, value: Any, name: str, number: Number) -> Any:
    """A tuple or mapping from a list or object of JSON."""
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise _wrong(value, name)
        return {
            key: _value(kinds[1], item, f"{name}.{shown(key)}", number)
            for key, item in value.items()
        }
    if not isinstance(value, list | tuple):
        raise _wrong(value, name)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise JsonError(f"its {name} cannot have {len(value)} items")
    return tuple(
        _value(kind, item, f"{name}[{place}]", number)
        for place, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _one_of(kinds: tuple[Any, ...], value: Any, name: str, number: Number) -> Any:
    """The value in the only type other than None, or a value of one of several plain types."""
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    if len(rest) == 1:
        return _value(rest[0], value, name, number)
    if all(fault_of(value, kind) for kind in rest):
        raise _wrong(value, name)
    return value


def _wrong(value: object, name: str) -> JsonError:
    return JsonError(f"its {name} cannot be {shown(value)}")
