"""Lists of words that a Python program hands over: one word counts as a list of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ddpo.errors import ConfigError
from ddpo.text import shortened

__all__ = ["listed", "words_of"]

SHOWN = 80  # characters of a wrong value


def words_of(name: str, value: Any) -> tuple[str, ...]:
    """The words of a list; a text or a path is one word, and None stands for none.

    Args:
        name: Name of the argument or field, for the message.
        value: Object of the caller.

    Raises:
        ConfigError: The value, or one of its items, is neither a text nor a path.
    """
    if value is None:
        return ()
    items = [value] if isinstance(value, str | os.PathLike) else value
    if isinstance(items, bytes | Mapping) or not isinstance(items, Iterable):
        raise _no_list(name, value)
    found = [_word(name, item) for item in items]
    return tuple(found)


def listed(settings: Any, *names: str) -> None:
    """Makes tuples of words of the given fields of a frozen dataclass; raises as `words_of`."""
    for name in names:
        object.__setattr__(settings, name, words_of(name, getattr(settings, name)))


def _word(name: str, item: Any) -> str:
    word = os.fspath(item) if isinstance(item, os.PathLike) else item
    if not isinstance(word, str):
        raise _no_list(name, item)
    return word


def _no_list(name: str, value: object) -> ConfigError:
    shown = shortened(repr(value), SHOWN)
    return ConfigError(f"{name} must be one text or a list of texts, got {shown}")
