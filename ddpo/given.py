"""Objects that a Python program hands to ddpo, named as if they lay in a module.

`name_of(function)` gives "ddpo.given:redness", which is a reward's name in this process alone. So
the function of a notebook cell trains like that of a file. A run records the hash of its source.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import re
from types import CodeType
from typing import Any, Final

from ddpo.author_errors import authored_file
from ddpo.errors import RewardLoadError, nearest

__all__ = ["MODULE", "given", "name_of"]

MODULE: Final = "ddpo.given"

DEEPEST: Final = 3
"""Number of functions and containers inside each other whose values count."""

_objects: dict[str, tuple[Any, str]] = {}
"""Name → the object, and the hash of its code."""


def name_of(found: Any) -> str:
    """The name by which this process finds `found`; a later object of the same name replaces it.

    Args:
        found: function, class or object of the caller.
    """
    own = getattr(found, "__name__", type(found).__name__)
    name = own if own.isidentifier() else re.sub(r"\W+", "_", own).strip("_")
    _objects[name] = (found, _digest(found))
    for code in _codes_of(found):
        authored_file(code.co_filename)
    return f"{MODULE}:{name}"


def given(name: str) -> tuple[Any, str]:
    """The object of a name, and its origin, "given redness sha256:…".

    Raises:
        RewardLoadError: no such object was given in this process.
    """
    if name not in _objects:
        near = nearest(name, _objects)
        hint = f"did you mean {near!r}?" if near else "pass the function itself"
        raise RewardLoadError(f"{MODULE}:{name} is not known in this process; {hint}")
    found, digest = _objects[name]
    return found, f"given {name} sha256:{digest}"


def _codes_of(found: Any) -> list[CodeType]:
    """The code of a function, or of the methods of a class or of an object's class."""
    subject = inspect.unwrap(found) if callable(found) else found
    if isinstance(subject, functools.partial):
        subject = subject.func
    if inspect.isroutine(subject):
        members = [subject]
    else:
        members = list(vars(subject if inspect.isclass(subject) else type(subject)).values())
    codes = [getattr(member, "__code__", None) for member in members]
    return [code for code in codes if isinstance(code, CodeType)]


def _digest(found: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of an object's source and of its plain values."""
    return hashlib.sha256(repr(_facts(found)).encode()).hexdigest()[:12]


def _facts(found: Any, depth: int = 0) -> list[Any]:
    """Source, defaults, closure and attributes of a function or object, as plain data.

    Values other than numbers, texts and their like count by their type, since the text of an object
    may differ from process to process.

    Args:
        found: Function, class or object.
        depth: Number of objects around it.
    """
    if depth > DEEPEST:
        return [type(found).__name__]
    if isinstance(found, functools.partial):
        values = [*found.args, *sorted(found.keywords.items())]
        return [*_facts(found.func, depth + 1), *(_value(value, depth) for value in values)]
    subject = inspect.unwrap(found) if callable(found) else found
    owner = getattr(subject, "__self__", None)
    state = subject if owner is None else owner
    if not inspect.isroutine(subject) and not inspect.isclass(subject):
        subject = type(subject)
    facts: list[Any] = [_source(subject)]
    facts.append(_value(getattr(subject, "__defaults__", None), depth))
    facts.append(_value(getattr(subject, "__kwdefaults__", None), depth))
    for cell in getattr(subject, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not filled yet
            facts.append(_value(cell.cell_contents, depth))
    if not inspect.isroutine(state) and not inspect.isclass(state):
        attributes = sorted(getattr(state, "__dict__", {}).items())
        facts.append([(name, _value(value, depth)) for name, value in attributes])
    return facts


def _value(value: Any, depth: int) -> Any:
    """A value as plain data; functions by their facts, other objects by their type."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    if isinstance(value, list | tuple) and depth <= DEEPEST:
        return [_value(inner, depth + 1) for inner in value]
    if isinstance(value, dict) and depth <= DEEPEST:
        return sorted((repr(name), repr(_value(inner, depth + 1))) for name, inner in value.items())
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        return _facts(value, depth + 1)
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _source(subject: Any) -> str:
    """The source of a function or class, or else its byte code; of lambdas their constants too."""
    code = getattr(subject, "__code__", None)
    try:
        text = inspect.getsource(subject)
    except (OSError, TypeError):
        return _code_text(code) or repr(subject)
    if isinstance(code, CodeType) and code.co_name == "<lambda>":  # several may share a line
        text += repr((code.co_names, code.co_varnames, _constants(code)))
    return text


def _constants(code: CodeType) -> list[Any]:
    return [_constants(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]


def _code_text(code: CodeType | None) -> str:
    """The byte code of a function with its constants and names, as text; "" without any."""
    if code is None:
        return ""
    constants = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, constants, code.co_names))
