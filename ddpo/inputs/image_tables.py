"""Tables of prompts by image file, for images found elsewhere."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, PromptError
from ddpo.inputs.columns import (
    FILE,
    FILE_NAMES,
    INDEX,
    PROMPT,
    column_of,
    metadata_of,
    text_of,
    value_of,
)
from ddpo.inputs.tables import TABLES, Row, read_table
from ddpo.inputs.text import check_text
from ddpo.types import Prompt

__all__ = ["BareNames", "FilePrompt", "PromptTable", "folder_table", "prompt_of_row", "same_name"]

METADATA_STEMS: Final = ("metadata", "prompts")
OTHER_SUFFIXES: Final = (".json", ".jsonl", ".ndjson")  # suffixes of tables with any name


@dataclass(frozen=True, slots=True)
class FilePrompt:
    """A row about an image: its place, its prompt if any, and its index for that prompt."""

    where: str
    prompt: Prompt | None
    index: Any


def prompt_of_row(row: Row, where: str) -> Prompt | None:
    """The prompt of a table's row with its metadata; None without a prompt.

    Raises:
        PromptError: The text is no prompt.
        ConfigError: The prompt or metadata has another type.
    """
    text = text_of(row, PROMPT, where)
    if text is None or not text.strip():
        return None
    used = (*PROMPT, *FILE, *INDEX)
    return Prompt(check_text(text, where), metadata_of(row, used, where))


def same_name(name: str) -> str:
    """A path in comparable form: without "." and "..", with forward slashes."""
    return os.path.normpath(name.replace("\\", "/"))


class PromptTable:
    """The prompts of a table by file, relative to the table's folder.

    Args:
        path: Table with a column of files, or with one row for its whole folder.

    Attributes:
        everything: Row for the whole folder, as in GenEval's `00000/metadata.jsonl`.
        rows: Name → row, for all others.

    Raises:
        ConfigError: The file is no table, has no files, or has one file with different prompts.
        PromptError: A text is no prompt.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, FilePrompt] = {}
        self.everything: FilePrompt | None = None
        bare = None
        for where, row in read_table(path):
            file = column_of(row, FILE, where)
            found = FilePrompt(where, prompt_of_row(row, where), value_of(row, INDEX, where))
            if file is not None and isinstance(row[file], str):
                self._add(row[file], found)
            else:
                bare = bare or found
        if bare is not None and not self.rows and bare.prompt is not None and self._is_geneval():
            self.everything = bare
        elif bare is not None:
            raise ConfigError(f"{bare.where}: no file; a column must be called {FILE_NAMES}")

    def _is_geneval(self) -> bool:
        """True for a table called metadata with one row."""
        return self.path.stem == "metadata" and sum(1 for _ in read_table(self.path)) == 1

    def _add(self, name: str, found: FilePrompt) -> None:
        other = self.rows.setdefault(same_name(name), found)
        if other.prompt != found.prompt:
            raise ConfigError(
                f"{found.where}: {name!r} is in the table twice, first at {other.where}"
            )

    def find(self, path: str) -> FilePrompt | None:
        """The row about the image at `path`, by its relative or full path."""
        if self.everything is not None:
            return self.everything
        relative = os.path.relpath(path, self.path.parent)
        for name in (relative, path, os.path.abspath(path)):
            if (found := self.rows.get(os.path.normpath(name))) is not None:
                return found
        return None


class BareNames:
    """The rows of a user's table, matched to images by the end of their paths.

    Args:
        table: Prompts by file.
        files: Paths of all images.

    Raises:
        ConfigError: A row fits several images, or no row fits any.
        PromptError: No row has a prompt.
    """

    def __init__(self, table: PromptTable, files: Iterable[str]) -> None:
        self._table = table
        if not any(row.prompt for row in table.rows.values()) and table.everything is None:
            raise PromptError(f"{table.path} has no column of prompts ({', '.join(PROMPT)})")
        first: dict[str, str] = {}
        matched = False
        for file in files:
            matched = matched or self.find(file) is not None
            name = os.path.basename(file)
            if table.find(file) is None and name in table.rows:
                other = first.setdefault(name, file)
                if other != file:
                    raise ConfigError(
                        f"{table.rows[name].where}: {name!r} may be {other} or {file}; "
                        "name it with its folder"
                    )
        if not matched:
            name = next(iter(table.rows), "")
            raise ConfigError(
                f"{table.path} names none of the images; its first is {name!r}, "
                "and paths are relative to the table"
            )

    def find(self, path: str) -> FilePrompt | None:
        """The row about an image, as `PromptTable.find`, or else by its bare name."""
        return self._table.find(path) or self._table.rows.get(os.path.basename(path))


def folder_table(folder: str, names: Collection[str]) -> PromptTable | None:
    """The table of a folder with the prompts of images in and below it; None without one.

    It is called metadata or prompts, or it is JSON whose first row has a file and a prompt.

    Args:
        folder: Path of the folder.
        names: Names of the files in the folder.

    Raises:
        ConfigError, PromptError: As `PromptTable`, for a table called metadata.
    """
    tables = sorted(name for name in names if name.lower().endswith(TABLES))
    for stem in METADATA_STEMS:
        for name in tables:
            path = Path(folder, name)
            if path.stem.lower() == stem and (stem == "metadata" or _names_images(path)):
                return PromptTable(path)
    stems = {os.path.splitext(name)[0] for name in names if name not in tables}
    for name in tables:
        path = Path(folder, name)
        beside_one = path.stem in stems  # `a.json` of `a.png`
        if path.suffix.lower() in OTHER_SUFFIXES and not beside_one and _names_images(path):
            return PromptTable(path)
    return None


def _names_images(path: Path) -> bool:
    """True for a table whose first row has a file and a prompt."""
    try:
        for where, row in read_table(path):
            return all(column_of(row, names, where) is not None for names in (FILE, PROMPT))
    except (ConfigError, PromptError):
        pass
    return False
