"""One registry for rewards, algorithms and policies: names, lazily loaded values, entry points, near-miss errors.

Listing imports nothing but the tables. A value is an object, a `"module:attribute"` string, or an entry point; it is loaded when
asked for, and a failure is kept with the name, its distribution and its cause, so that one broken plug-in never stops the others.

`DDPO_PLUGINS` in the environment chooses whose entry points count: `none`, or distributions separated by commas; all if it is not set.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from ddpo.errors import RewardLoadError, UnknownNameError, nearest, one_line

__all__ = ["Entry", "Registry", "explain_load_failure", "load_attribute", "nearest", "unknown_name"]

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not known: one line with the nearest name, or with all of them."""
    names = sorted(known)
    near = nearest(name, names)
    return UnknownNameError(
        f"unknown {kind} {name!r}; "
        + (f"did you mean {near!r}?" if near else f"known: {', '.join(names) or 'none'}")
    )


def load_attribute(reference: str) -> Any:
    """The object that `"package.module:attribute"` names.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: the module has no such attribute.
    """
    module, _, attribute = reference.partition(":")
    value: Any = importlib.import_module(module)
    for part in attribute.split("."):
        value = getattr(value, part)
    return value


def explain_load_failure(error: BaseException, module: str, install: str) -> str:
    """Why code of `module` could not be loaded, on one line: a dependency that is not installed is told apart from a bug of its own.

    Args:
        error: what was raised.
        module: the module that was asked for, such as "acme_rewards.sharp".
        install: what to install when a module of somebody else is missing, such as 'pip install "ddpo[aesthetic]"'.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return one_line(error)
    if error.name.partition(".")[0] == module.partition(".")[0]:
        return f"its own module {error.name} does not exist"
    return f"it needs the Python module {error.name.partition('.')[0]}, which is not installed: {install}"


def _plugins_of(distribution: str) -> bool:
    """Whether `DDPO_PLUGINS` lets the entry points of a distribution count; spelling as in PEP 503."""
    chosen = os.environ.get("DDPO_PLUGINS")
    if chosen is None:
        return True
    return _normal(distribution) in {_normal(name) for name in chosen.split(",")}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


@dataclass(slots=True)
class Entry(Generic[T]):
    """One name of a registry: where its value comes from, and the value or the failure once it was asked for."""

    name: str
    source: T | str | EntryPoint
    origin: str  # "ddpo" or the distribution and version
    error: BaseException | None = None
    value: T | None = None


class Registry(Generic[T]):
    """Names of one kind, built in and from entry points.

    Args:
        kind: the word for error messages, such as "reward".
        group: the entry-point group, such as "ddpo.rewards".
        expected: the type that every value must have.
        builtin: name → value or `"module:attribute"`. A built-in wins over an entry point of the same name.
        check: called with a name and its value when it is loaded; raises when they do not belong together.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        expected: type[T] | None,
        builtin: Mapping[str, T | str],
        check: Callable[[str, T], None] | None = None,
    ) -> None:
        self.kind, self.group, self._expected, self._check = kind, group, expected, check
        self._builtin = builtin
        self._entries: dict[str, list[Entry[T]]] | None = None
        self._hidden: list[Entry[T]] = []

    def entries(self) -> dict[str, list[Entry[T]]]:
        """Name → its entries (more than one when several distributions claim the name), sorted by name."""
        if self._entries is None:
            table: dict[str, list[Entry[T]]] = {
                name: [Entry(name, value, "ddpo")] for name, value in self._builtin.items()
            }
            self._hidden = []
            for point in entry_points(group=self.group):
                if not _plugins_of(point.dist.name if point.dist else ""):
                    continue
                entry = Entry[T](
                    point.name,
                    point,
                    f"{point.dist.name} {point.dist.version}"
                    if point.dist
                    else "unknown distribution",
                )
                if point.name in self._builtin:
                    self._hidden.append(entry)
                else:
                    table.setdefault(point.name, []).append(entry)
            self._entries = dict(sorted(table.items()))
        return self._entries

    def hidden(self) -> list[Entry[T]]:
        """The entry points that nobody gets, because a built-in has their name."""
        self.entries()
        return self._hidden

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(self.entries())

    def get(self, name: str) -> T:
        """The value of a name.

        Raises:
            UnknownNameError: no such name; says the nearest.
            RewardLoadError: its plug-in is broken, is not of the expected kind, or two distributions claim the name.
        """
        found = self.entries().get(name)
        if found is None:
            raise unknown_name(self.kind, name, self.entries())
        if len(found) > 1:
            raise RewardLoadError(
                f"{self.kind} {name!r} is claimed by {' and by '.join(e.origin for e in found)}: uninstall one of them"
            )
        entry = found[0]
        if entry.error is None and entry.value is None:
            self._load(entry)
        if entry.error is not None:
            raise RewardLoadError(
                f"{self.kind} {name!r} of {entry.origin} is broken: {self._cause(entry, entry.error)}"
            ) from entry.error
        return cast(T, entry.value)

    def origin(self, name: str) -> str:
        """Where a known name comes from: "ddpo", or a distribution and its version."""
        return self.entries()[name][0].origin

    def available(self) -> tuple[dict[str, T], dict[str, Exception]]:
        """Every value that loads, and the failure of every name that does not."""
        values: dict[str, T] = {}
        failures: dict[str, Exception] = {}
        for name in self.entries():
            try:
                values[name] = self.get(name)
            except RewardLoadError as error:
                failures[name] = error
        return values, failures

    def _load(self, entry: Entry[T]) -> None:
        try:
            source = entry.source
            value = (
                load_attribute(source)
                if isinstance(source, str)
                else source.load()
                if isinstance(source, EntryPoint)
                else source
            )
            if self._expected is not None and not isinstance(value, self._expected):
                raise TypeError(f"it is a {type(value).__name__}, not a {self._expected.__name__}")
            if self._check is not None:
                self._check(entry.name, value)
            entry.value = value
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a plug-in may raise anything at import; kept and shown with its name
            entry.error = error

    @staticmethod
    def _cause(entry: Entry[T], error: BaseException) -> str:
        reference = (
            entry.source.value if isinstance(entry.source, EntryPoint) else str(entry.source)
        )
        return explain_load_failure(
            error, reference.partition(":")[0], f"install it, or reinstall {entry.origin}"
        )
