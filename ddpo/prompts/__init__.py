"""Prompt lists, built in or from a user's file.

A text file has one prompt per line. A table (`ddpo.inputs.tables`) has a column of prompts and, if
a reward needs it, "metadata"; without that column all other columns are the metadata. "weight" is
the relative frequency of sampling a prompt, and repeated prompts add their weights.

`ddpo.prompts.leaks` checks held-out prompts for disguised training prompts. `lists/README.md` has
the sources of the built-in lists.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, PromptError
from ddpo.inputs.columns import PROMPT, WEIGHT, column_of, explicit_metadata, metadata_of
from ddpo.inputs.tables import TABLES, Row, columns_without_bytes, read_entries
from ddpo.inputs.text import check_text, numbered_lines
from ddpo.io.atomic import named_path
from ddpo.registry import nearest
from ddpo.text import shortened
from ddpo.types import Prompt

__all__ = [
    "PromptSet",
    "builtin_names",
    "builtin_prompts",
    "listed_prompts",
    "load_prompts",
    "with_shared_metadata",
]

TEXTS: Final = (".txt", ".text", ".prompts", ".lst", "")
BUILT_IN: Final = (".txt", ".jsonl")
SUFFIXES: Final = ", ".join((TEXTS[0], *TABLES))
MAX_WEIGHT: Final = 1000  # a larger weight is a mistake
HEADERS: Final = frozenset(("prompt", "prompts", "caption", "captions"))
QUOTED_FIELD: Final = re.compile(r'"([^"]|"")*",\S')  # prose has a space after the comma
BRACKETS: Final = re.compile(r"[\[\]{},]+")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A named list of distinct prompts; `source` describes its origin in words."""

    name: str
    source: str
    prompts: tuple[Prompt, ...]
    weights: tuple[int, ...]  # samples of each prompt per cycle, without a common divisor
    described: bool = False  # True if the metadata are the other columns of a table

    def __len__(self) -> int:
        return len(self.prompts)

    def first(self, count: int | None) -> PromptSet:
        """The first prompts of the list, at most `count` of them; None for all."""
        return replace(self, prompts=self.prompts[:count], weights=self.weights[:count])

    @property
    def digest(self) -> str:
        """The hexadecimal SHA-256 of texts, metadata and weights, on which a run depends."""
        weighted = zip(self.prompts, self.weights, strict=True)
        rows = [[prompt.text, dict(prompt.metadata), weight] for prompt, weight in weighted]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


@cache
def builtin_names() -> tuple[str, ...]:
    """The names of the built-in lists."""
    return tuple(sorted(_builtin_files()))


@cache
def _builtin_files() -> dict[str, str]:
    """List name → file name."""
    entries = [entry.name for entry in (files("ddpo.prompts") / "lists").iterdir()]
    return {name.rpartition(".")[0]: name for name in entries if name.endswith(BUILT_IN)}


def load_prompts(name_or_path: str) -> PromptSet:
    """The prompts of the file with this path, else of the built-in list with this name.

    "animals" and "animals.txt" both name the built-in list. A folder of Parquet shards is one list.

    Raises:
        PromptError: There is no such file or list, it is empty, or a line is no prompt.
    """
    path = named_path(name_or_path)
    if os.path.isfile(path):  # Path.is_file raises if the name is too long
        return _collected(_entries(path), path.stem, f"file {path}", str(path))
    name = name_or_path.removesuffix(".txt").removesuffix(".jsonl")
    if name in builtin_names():
        return builtin_prompts(name)
    if name_or_path and os.path.isdir(path):
        return _collected(_entries(path), path.name, f"folder {path}", str(path))
    near = nearest(name, builtin_names())
    hint = f"did you mean {near!r}?" if near else f"built-in: {', '.join(builtin_names())}"
    shown = shortened(name_or_path, 200)
    raise PromptError(f"no prompt file and no built-in list {shown!r}; {hint}")


def builtin_prompts(name: str) -> PromptSet:
    """The built-in list with one of `builtin_names()`, even if a file has the same name."""
    with as_file(files("ddpo.prompts") / "lists" / _builtin_files()[name]) as path:
        return _collected(_entries(path), name, f"built-in list {name!r}", path.name)


def listed_prompts(path: Path | str) -> list[Prompt]:
    """The prompts of a file in order, with repetitions.

    Raises:
        PromptError: As `load_prompts`.
    """
    return [entry.prompt for entry in _entries(named_path(path)) for _ in range(entry.weight)]


def with_shared_metadata(lists: Sequence[PromptSet]) -> list[PromptSet]:
    """The lists, with the union of its metadata for each prompt that several lists share.

    A value under "metadata" wins over that of a table's column. Columns that differ between tables
    describe their rows and are left out.

    Raises:
        PromptError: Two lists have different values under "metadata" for one prompt.
    """
    known: dict[str, dict[str, Any]] = {}
    for (id, key), values in _values(one for one in lists if one.described).items():
        first, _ = values[0]
        if all(value == first for value, _ in values):
            known.setdefault(id, {})[key] = first
    for (id, key), values in _values(one for one in lists if not one.described).items():
        first, name = values[0]
        for value, other in values:
            if value != first:
                text = next(p.text for one in lists for p in one.prompts if p.id == id)
                both = f"one metadata in {name!r} and another in {other!r}"
                raise PromptError(f"the prompt {shortened(text)!r} has {both}")
        known.setdefault(id, {})[key] = first
    return [_with_metadata(one, known) for one in lists]


def _values(lists: Iterable[PromptSet]) -> dict[tuple[str, str], list[tuple[Any, str]]]:
    """Prompt id and metadata key → values, each with the name of its list."""
    found: dict[tuple[str, str], list[tuple[Any, str]]] = {}
    for one in lists:
        for prompt in one.prompts:
            for key, value in prompt.metadata.items():
                found.setdefault((prompt.id, key), []).append((value, one.name))
    return found


def _with_metadata(one: PromptSet, known: Mapping[str, Mapping[str, Any]]) -> PromptSet:
    prompts = tuple(Prompt(prompt.text, known.get(prompt.id, {})) for prompt in one.prompts)
    return replace(one, prompts=prompts)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A prompt as written in a file, with its place there."""

    where: str  # "file:line"
    prompt: Prompt
    weight: int = 1
    explicit: bool = True  # True if the metadata are under "metadata", not in other columns


def _collected(entries: Iterable[_Entry], name: str, source: str, origin: str) -> PromptSet:
    """The distinct prompts, in the order of their first appearance.

    Raises:
        PromptError: There is no prompt, or one prompt has two objects under "metadata".
    """
    first: dict[str, _Entry] = {}
    metadata: dict[str, dict[str, Any]] = {}
    weights: dict[str, int] = {}
    for entry in entries:
        id = entry.prompt.id
        known = first.setdefault(id, entry)
        shared = metadata.setdefault(id, dict(entry.prompt.metadata))
        weights[id] = weights.get(id, 0) + entry.weight
        if entry.prompt.metadata == shared:
            continue
        if entry.explicit or known.explicit:
            text = shortened(entry.prompt.text)
            raise PromptError(f"{entry.where}: {text!r} has other metadata than at {known.where}")
        _keep_common(shared, entry.prompt.metadata)
    if not first:
        raise PromptError(f"{origin} holds no prompt")
    prompts = tuple(Prompt(entry.prompt.text, metadata[id]) for id, entry in first.items())
    divisor = math.gcd(*weights.values())
    times = tuple(weight // divisor for weight in weights.values())
    described = any(not entry.explicit for entry in first.values())
    return PromptSet(name, source, prompts, times, described)


def _keep_common(shared: dict[str, Any], other: Row) -> None:
    """Drops the values that differ in another row of the same prompt, since they describe rows."""
    for key in [key for key, value in shared.items() if key not in other or other[key] != value]:
        del shared[key]


def _entries(path: Path) -> Iterator[_Entry]:
    """The prompts of a file, in order."""
    suffix = path.suffix.lower()
    if suffix in TABLES or path.is_dir():
        try:
            for where, found in read_entries(path, columns_without_bytes(path)):
                yield _tabled(found, where)
        except ConfigError as error:
            raise PromptError(str(error)) from error
    elif suffix in TEXTS:
        yield from _lines(path)
    else:
        raise PromptError(f"{path}: a prompt list must be one of {SUFFIXES}")


def _tabled(found: Row | str, where: str) -> _Entry:
    if isinstance(found, str):
        return _Entry(where, Prompt(check_text(found, where)))
    column = column_of(found, PROMPT, where)
    if column is None:
        if any(name.strip().lower() in PROMPT for name in found):
            raise PromptError(f"{where}: an empty prompt")
        names = ", ".join(shortened(name, 30) for name in found) or "none"
        accepted = ", ".join(PROMPT)
        raise PromptError(
            f"{where}: no prompt; the columns are {names}; expected one of {accepted}"
        )
    text = found[column]
    if not isinstance(text, str):
        raise PromptError(f'{where}: expected "{column}" to be a text, got {shortened(repr(text))}')
    prompt = Prompt(check_text(text, where), metadata_of(found, (column, *WEIGHT), where))
    explicit = explicit_metadata(found, where) is not None
    return _Entry(where, prompt, _weight(found, where), explicit)


def _weight(row: Row, where: str) -> int:
    column = column_of(row, WEIGHT, where)
    given = 1 if column is None else row[column]
    if isinstance(given, float) and given.is_integer():
        given = int(given)  # pandas writes integers of a column with gaps so
    if isinstance(given, str) and given.isdecimal() and len(given) < 10:
        given = int(given)  # all values of CSV are texts
    if type(given) is not int or not 1 <= given <= MAX_WEIGHT:
        wrong = f"must be a whole number from 1 to {MAX_WEIGHT}, got {shortened(repr(given))}"
        raise PromptError(f'{where}: "weight" {wrong}')
    return given


def _lines(path: Path) -> Iterator[_Entry]:
    """The prompts of a text file: its lines that are not blank.

    Raises:
        PromptError: A line comes from a table or from JSON, or is no prompt for another reason.
    """
    seen = False
    for number, line in numbered_lines(path):
        text = line.strip()
        if not text:
            continue
        where = f"{path}:{number}"
        _refuse_tables(text, where, first=not seen)
        seen = True
        yield _Entry(where, Prompt(check_text(text, where)))


def _refuse_tables(line: str, where: str, first: bool) -> None:
    """Raises `PromptError` for a line of a table or of JSON."""
    shown = repr(shortened(line))
    if "\t" in line:
        raise PromptError(f"{where}: a tab in a prompt; if the file is a table, call it .tsv")
    if BRACKETS.fullmatch(line) or (line[0] in "[{" and _is_json(line)):
        raise PromptError(f"{where}: JSON, not a prompt: {shown}; call the file .json or .jsonl")
    if QUOTED_FIELD.match(line) or (first and _is_header(line)):
        raise PromptError(f"{where}: a line of a table, not a prompt: {shown}; call the file .csv")


def _is_header(line: str) -> bool:
    names = {name.strip(' "').lower() for name in re.split("[,;|]", line)}
    return bool(names & HEADERS) or ("text" in names and len(names) > 1 and " " not in line)


def _is_json(line: str) -> bool:
    try:
        json.loads(line.rstrip(","))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
