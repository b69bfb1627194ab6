"""Which pictures are scored, and with which prompts: files, folders, tables; a prompt file, one prompt, or what lies beside a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from ddpo.errors import ConfigError, ImageError, PromptError
from ddpo.inputs.image_files import ImageFiles
from ddpo.inputs.tables import TABLES, read_table
from ddpo.inputs.text import read_text
from ddpo.rewards.scored_files.stream import Picture
from ddpo.types import Prompt

__all__ = ["PictureSource", "picture_source"]

FILE_COLUMNS: Final = ("file", "file_name", "image", "image_path", "path")
PROMPT_COLUMNS: Final = ("prompt", "text", "caption")
"""Names under which tables in use hold them; `file_name` and `text` are those of the `imagefolder` layout of Hugging Face datasets."""


class PictureSource(Protocol):
    """Pictures in order; iterating again gives the same."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Picture]: ...


def picture_source(places: Sequence[Path], prompts: Path | None = None, prompt: str | None = None) -> PictureSource:
    """The pictures of `places`, with prompts.

    Args:
        places: pictures, folders of pictures, and tables (.parquet, .csv, .jsonl) with a column of files, relative to the table, and
            perhaps one of prompts.
        prompts: a `.txt` file with one line per picture in their order, or a table with a column of files and one of prompts.
        prompt: the one prompt of all pictures. With neither, the prompts are those of the tables among `places`, of a text file beside
            each picture (`cat.png`, `cat.txt`), or of `metadata.jsonl` or `metadata.csv` in its folder.

    Raises:
        ConfigError: both `prompts` and `prompt`, or a table that cannot be read.
        ImageError: a place does not exist, or holds no picture.
        PromptError: a prompt file that cannot be read, or whose number of lines is not that of the pictures.
    """
    if prompts is not None and prompt is not None:
        raise ConfigError("give --prompts or --prompt, not both")
    tables = [place for place in places if place.suffix.lower() in TABLES]
    if tables and len(places) > 1:
        raise ConfigError(f"{tables[0]} is a table of pictures; give it alone")
    if tables:
        return _Tabled(tables[0], prompts, prompt)
    files = ImageFiles(places)
    if prompt is not None:
        return _Prompted(files, _Constant(Prompt(prompt)))
    if prompts is None:
        return _Prompted(files, _Beside())
    if prompts.suffix.lower() in TABLES:
        return _Prompted(files, _ByFile(prompts))
    lines = [line.strip() for line in read_text(prompts).splitlines() if line.strip()]
    if len(lines) != len(files):
        raise PromptError(f"{prompts} has {len(lines)} prompts for {len(files)} images; one line per image is needed, in their order")
    return _Prompted(files, _InOrder(lines))


class _Lookup(Protocol):
    def find(self, index: int, file: str) -> Prompt | None: ...


class _Prompted:
    """Files, and where to look for the prompt of each."""

    def __init__(self, files: ImageFiles, prompts: _Lookup) -> None:
        self._files, self._prompts = files, prompts

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Picture]:
        for index, file in enumerate(self._files):
            yield Picture(file, self._prompts.find(index, file))


class _Constant:
    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt

    def find(self, index: int, file: str) -> Prompt | None:
        return self._prompt


class _InOrder:
    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def find(self, index: int, file: str) -> Prompt | None:
        return Prompt(self._lines[index])


class _ByFile:
    """A table's prompts, by the path as it stands there, by the path relative to the table, or by the bare name."""

    def __init__(self, table: Path) -> None:
        self._folder = table.parent
        self._prompts = {file: prompt for file, prompt in read_picture_table(table) if prompt is not None}
        if not self._prompts:
            raise PromptError(f"{table} has no column of prompts ({', '.join(PROMPT_COLUMNS)})")

    def find(self, index: int, file: str) -> Prompt | None:
        names = (file, os.path.relpath(file, self._folder), os.path.basename(file))
        return next((self._prompts[name] for name in names if name in self._prompts), None)


class _Beside:
    """What lies beside a picture: `cat.txt` for `cat.png`, or the metadata file of the folder."""

    def __init__(self) -> None:
        self._folder = ""
        self._table: _ByFile | None = None

    def find(self, index: int, file: str) -> Prompt | None:
        folder, (stem, _) = os.path.dirname(file), os.path.splitext(file)
        sidecar = Path(stem + ".txt")
        if sidecar.is_file():
            return Prompt(" ".join(read_text(sidecar).split()))
        if folder != self._folder or index == 0:
            found = [path for name in ("metadata.jsonl", "metadata.csv") if (path := Path(folder) / name).is_file()]
            self._folder, self._table = folder, _ByFile(found[0]) if found else None
        return self._table.find(index, file) if self._table else None


class _Tabled:
    """The pictures of a table, with its prompts unless one is given for all."""

    def __init__(self, table: Path, prompts: Path | None, prompt: str | None) -> None:
        if prompts is not None:
            raise ConfigError(f"{table} is a table of pictures and brings its prompts; leave out --prompts")
        rows = read_picture_table(table)
        if not rows:
            raise ImageError(f"{table} names no pictures")
        constant = Prompt(prompt) if prompt is not None else None
        self._pictures = [Picture(os.path.join(table.parent, file), constant or found) for file, found in rows]

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._pictures)


def read_picture_table(path: Path) -> list[tuple[str, Prompt | None]]:
    """File and prompt of each row of a .parquet, .csv or .jsonl table. A column "metadata" of objects goes into the prompts.

    Raises:
        ConfigError: missing, malformed (names the row), or without a column of files.
    """
    rows: list[tuple[str, Prompt | None]] = []
    for where, record in read_table(path):
        file = next((record[name] for name in FILE_COLUMNS if isinstance(record.get(name), str)), None)
        if file is None:
            raise ConfigError(f"{where}: no file; a column must be called {', '.join(FILE_COLUMNS[:-1])} or {FILE_COLUMNS[-1]}")
        text = next((record[name] for name in PROMPT_COLUMNS if isinstance(record.get(name), str)), None)
        metadata = record.get("metadata")
        rows.append((file, Prompt(text, dict(metadata) if isinstance(metadata, Mapping) else {}) if text is not None else None))
    return rows
