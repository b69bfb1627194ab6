"""The registry of rewards, algorithms and policies: lazily loaded values and entry points.

Listing the names imports no plug-in. A value is an object, a `"module:attribute"` string or an
entry point, and is loaded at first use. A failure is kept with the name, its distribution and its
cause, so that one broken plug-in never stops the others.

`DDPO_PLUGINS` in the environment selects the distributions whose entry points count, separated by
commas. `none` selects no distribution; if the variable is not set, all count.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from ddpo.author_errors import author_line, authored_package, plain_module_names
from ddpo.errors import INTERRUPTS, RewardLoadError, UnknownNameError, nearest, one_line

__all__ = ["Entry", "Registry", "explain_load_failure", "load_attribute", "nearest", "unknown_name"]

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for an unknown name: one line with the nearest known name, or with all names."""
    names = sorted(known)
    near = nearest(name, names)
    return UnknownNameError(
        f"unknown {kind} {name!r}; "
        + (f"did you mean {near!r}?" if near else f"known: {', '.join(names) or 'none'}")
    )


def load_attribute(reference: str) -> Any:
    """The object named by `"package.module:attribute"`.

    Raises:
        ImportError: The module cannot be imported.
        AttributeError: The module has no such attribute.
    """
    module, _, attribute = reference.partition(":")
    value: Any = importlib.import_module(module)
    for part in attribute.split("."):
        value = getattr(value, part)
    return value


def explain_load_failure(error: BaseException, module: str, install: str) -> str:
    """The cause of a failed import on one line, with missing dependencies distinguished from bugs.

    Args:
        error: The exception raised by the import.
        module: Dotted name of the imported module, such as "acme_rewards.sharp".
        install: Command that installs a missing dependency, such as 'pip install "ddpo[vlm]"'.
    """
    if not isinstance(error, ImportError) or not error.name:
        return author_line(error)
    dependency = error.name.partition(".")[0]
    own = dependency == module.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError):
        if own:
            return author_line(error)
        return (
            f"the Python module {dependency} is installed but cannot be used "
            f"({one_line(error)}): install another version of it, or reinstall it"
        )
    if own:
        return f"its own module {plain_module_names(error.name)} does not exist"
    if error.name != dependency and _is_installed(dependency):
        return (
            f"it needs the Python module {error.name}, which the installed version of "
            f"{dependency} lacks: install another version of {dependency}, or reinstall it"
        )
    return f"it needs the Python module {dependency}, which is not installed: {install}"


def _is_installed(package: str) -> bool:
    """True if a top-level module can be found, whether or not it can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _plugins_of(distribution: str) -> bool:
    """True if `DDPO_PLUGINS` admits the entry points of a distribution (names as in PEP 503)."""
    chosen = os.environ.get("DDPO_PLUGINS")
    if chosen is None:
        return True
    return _normal(distribution) in {_normal(name) for name in chosen.split(",")}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _load_source(source: Any) -> Any:
    if isinstance(source, str):
        return load_attribute(source)
    return source.load() if isinstance(source, EntryPoint) else source


@dataclass(slots=True)
class Entry(Generic[T]):
    """One name of a registry with its source and, once loaded, its value or its failure."""

    name: str
    source: T | str | EntryPoint
    origin: str  # "ddpo" or the distribution and version
    error: BaseException | None = None
    value: T | None = None


class Registry(Generic[T]):
    """Names of one kind, built in and from entry points.

    Args:
        kind: Word for the values in error messages, such as "reward".
        group: Entry-point group, such as "ddpo.rewards".
        expected: Required type of every value; None for any type.
        builtin: Name → value or `"module:attribute"`; wins over an entry point of the same name.
        check: Function of a name and its loaded value that raises if they do not match.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        expected: type[T] | None,
        builtin: Mapping[str, T | str],
        check: Callable[[str, T], None] | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self._expected = expected
        self._check = check
        self._builtin = builtin
        self._entries: dict[str, list[Entry[T]]] | None = None
        self._hidden: list[Entry[T]] = []

    def entries(self) -> dict[str, list[Entry[T]]]:
        """Name → entries, sorted by name; several entries if several distributions claim a name."""
        if self._entries is None:
            table: dict[str, list[Entry[T]]] = {
                name: [Entry(name, value, "ddpo")] for name, value in self._builtin.items()
            }
            self._hidden = []
            for point in entry_points(group=self.group):
                if not _plugins_of(point.dist.name if point.dist else ""):
                    continue
                origin = "unknown distribution"
                if point.dist:
                    origin = f"{point.dist.name} {point.dist.version}"
                entry = Entry[T](point.name, point, origin)
                if point.name in self._builtin:
                    self._hidden.append(entry)
                else:
                    table.setdefault(point.name, []).append(entry)
            self._entries = dict(sorted(table.items()))
        return self._entries

    def hidden(self) -> list[Entry[T]]:
        """The entry points that a built-in of the same name hides."""
        self.entries()
        return self._hidden

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(self.entries())

    def get(self, name: str) -> T:
        """The value of a name.

        Raises:
            UnknownNameError: There is no such name; the message suggests the nearest one.
            RewardLoadError: The plug-in is broken or of the wrong type, or two distributions claim
                the name.
        """
        found = self.entries().get(name)
        if found is None:
            raise unknown_name(self.kind, name, self.entries())
        if len(found) > 1:
            owners = " and by ".join(entry.origin for entry in found)
            raise RewardLoadError(
                f"{self.kind} {name!r} is claimed by {owners}: uninstall one of them"
            )
        entry = found[0]
        if entry.error is None and entry.value is None:
            self._load(entry)
        if entry.error is not None:
            cause = self._cause(entry, entry.error)
            raise RewardLoadError(
                f"{self.kind} {name!r} of {entry.origin} is broken: {cause}"
            ) from entry.error
        return cast(T, entry.value)

    def origin(self, name: str) -> str:
        """The origin of a known name: "ddpo", or a distribution and its version."""
        return self.entries()[name][0].origin

    def available(self) -> tuple[dict[str, T], dict[str, Exception]]:
        """Every value that loads, and the failure of every other name."""
        values: dict[str, T] = {}
        failures: dict[str, Exception] = {}
        for name in self.entries():
            try:
                values[name] = self.get(name)
            except RewardLoadError as error:
                failures[name] = error
        return values, failures

    def _load(self, entry: Entry[T]) -> None:
        if isinstance(entry.source, EntryPoint):
            authored_package(entry.source.value)
        try:
            value = _load_source(entry.source)
            if self._expected is not None and not isinstance(value, self._expected):
                raise TypeError(f"it is a {type(value).__name__}, not a {self._expected.__name__}")
            if self._check is not None:
                self._check(entry.name, value)
            entry.value = value
        except INTERRUPTS:
            raise
        except BaseException as error:  # noqa: BLE001  # a plug-in may raise anything
            entry.error = error

    @staticmethod
    def _cause(entry: Entry[T], error: BaseException) -> str:
        reference = (
            entry.source.value if isinstance(entry.source, EntryPoint) else str(entry.source)
        )
        return explain_load_failure(
            error, reference.partition(":")[0], f"install it, or reinstall {entry.origin}"
        )
