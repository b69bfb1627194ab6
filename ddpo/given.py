"""Objects that a Python program hands to ddpo, named as if they lay in a module.

`name_of(function)` gives "ddpo.given:redness", which is a reward's name in this process alone. So
the function of a notebook cell trains like that of a file. A run records the hash of its source.
"""

from __future__ import annotations

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
    """Twelve hexadecimal digits of the SHA-256 of an object's source, or else of its byte code."""
    subject = inspect.unwrap(found) if callable(found) else found
    if not inspect.isroutine(subject) and not inspect.isclass(subject):
        subject = type(subject)
    try:
        text = inspect.getsource(subject)
    except (OSError, TypeError):
        text = _code_text(getattr(subject, "__code__", None)) or repr(subject)
    values = [getattr(subject, "__defaults__", None), getattr(subject, "__kwdefaults__", None)]
    return hashlib.sha256(f"{text}{values!r}".encode()).hexdigest()[:12]


def _code_text(code: CodeType | None) -> str:
    """The byte code of a function with its constants and names, as text; "" without any."""
    if code is None:
        return ""
    constants = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, constants, code.co_names))
