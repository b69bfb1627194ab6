"""Prompts of image files by what lies in their folders; the first of these that gives one.

1. a table at any level: `metadata.jsonl`, `.csv`, `.parquet` …, the nearest that names the image
2. a caption file beside the image: `cat.txt`, `cat.caption` or `cat.cap` for `cat.png`
3. the metadata in the image file (`ddpo.inputs.image_metadata`)
4. one row in `metadata.jsonl` for the whole folder, as GenEval writes it: `00000/samples/0000.png`
5. the image's name, as T2I-CompBench writes it: `samples/a green bench_000003.png`
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from ddpo.errors import PromptError
from ddpo.inputs.captions import prompt_of_caption
from ddpo.inputs.image_metadata import embedded_prompt
from ddpo.inputs.image_tables import FilePrompt, PromptTable, folder_table
from ddpo.inputs.input_image import InputImage, Origin, image_of_file
from ddpo.inputs.text import check_text, read_text
from ddpo.types import Prompt

__all__ = ["CAPTIONS", "FolderPrompts", "caption_prompt", "index_of_name", "prompt_of_name"]

CAPTIONS: Final = (".txt", ".caption", ".cap")
"""Suffixes of captions: the web UI's, kohya's `--caption_extension`, and a short form in use."""

ABOVE: Final = 2  # levels above the folder that the user named in which a table may lie
COMPBENCH: Final = re.compile(r"(.+ .+)_(\d{6})")
"""A prompt of several words and the image's number (Karine-Huang/T2I-CompBench, README)."""

OWN_SAMPLE: Final = re.compile(r"([0-9a-f]{12})-(\d+)")
"""Names of `ddpo sample`: prompt id and index."""

NUMBER: Final = re.compile(r"(\d+)$")


class FolderPrompts:
    """Finds the prompts of image files, folder by folder.

    Tables of a folder and those above it are in memory while its images are read.

    Args:
        root: folder that the user named; None for files that were named one by one.
    """

    def __init__(self, root: str | None = None) -> None:
        self._root = None if root is None else os.path.abspath(root)
        self._tables: dict[str, PromptTable | None] = {}
        self._folder = ""
        self._chain: list[PromptTable] = []

    def picture(self, path: str) -> InputImage:
        """The image at `path` with its prompt.

        Raises:
            ConfigError, PromptError: a table that cannot be understood.
        """
        picture = image_of_file(path)
        row = self._row(path)
        if row is not None and row.prompt is not None:
            origin: Origin = "folder" if self._is_of_folder(row) else "table"
            index = row.index if row.index is not None or origin == "table" else index_of_name(path)
            if origin == "table" or (own := self._own_prompt(picture)) is None:
                return _with(picture, row.prompt, origin, index)
            return own
        return self._own_prompt(picture) or picture

    def _own_prompt(self, picture: InputImage) -> InputImage | None:
        """The picture with the prompt beside it, in it, or in its name; None if there is none."""
        path = picture.path
        stem = os.path.splitext(path)[0]
        for end in CAPTIONS:
            if os.path.isfile(stem + end):
                return _captioned(picture, Path(stem + end))
        if (text := embedded_prompt(path)) is not None:
            return _with(picture, Prompt(text), "image", None)
        if (named := prompt_of_name(path)) is not None:
            return _with(picture, Prompt(named[0]), "name", named[1])
        return None

    def _is_of_folder(self, row: FilePrompt) -> bool:
        return any(table.everything is row for table in self._chain)

    def _row(self, path: str) -> FilePrompt | None:
        """The row of the nearest table that knows the image; one with a prompt comes first."""
        folder = os.path.dirname(os.path.abspath(path))
        if folder != self._folder or not self._tables:
            self._enter(folder)
        if not self._chain:
            return None
        found = [row for table in self._chain if (row := table.find(path)) is not None]
        return next((row for row in found if row.prompt is not None), None)

    def _enter(self, folder: str) -> None:
        """Reads the tables of a folder and of those above it, nearest first."""
        levels = self._levels(folder)
        self._tables = {
            level: self._tables[level] if level in self._tables else _table_of(level, named)
            for level, named in levels.items()
        }
        self._folder = folder
        self._chain = [table for table in self._tables.values() if table is not None]

    def _levels(self, folder: str) -> dict[str, bool]:
        """Folder → True if the user named it or one above it, from the image's folder upward."""
        levels: dict[str, bool] = {}
        while self._root is not None and folder != self._root:
            levels[folder] = True
            parent = os.path.dirname(folder)
            if parent == folder:  # a followed link leads out of the root
                break
            folder = parent
        levels[folder] = True
        for _ in range(ABOVE):
            folder = os.path.dirname(folder)
            levels.setdefault(folder, False)
        return levels


def _table_of(folder: str, named: bool) -> PromptTable | None:
    """The table of a folder; above what the user named, only one called metadata."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return None
    if not named:
        names = [name for name in names if os.path.splitext(name)[0] == "metadata"]
    return folder_table(folder, names)


def _with(picture: InputImage, prompt: Prompt, origin: Origin, index: Any) -> InputImage:
    return InputImage(
        picture.file,
        prompt,
        origin=origin,
        index=index,
        data=picture.data,
        place=picture.place,
    )


def _captioned(picture: InputImage, caption: Path) -> InputImage:
    """The picture with the prompt of a caption file, or the reason why that holds none."""
    try:
        prompt, reason = caption_prompt(read_text(caption), str(caption))
    except PromptError as error:
        prompt, reason = None, str(error)
    if prompt is None:
        return InputImage(
            picture.file, no_prompt=reason, origin="caption", data=picture.data, place=picture.place
        )
    own = OWN_SAMPLE.fullmatch(Path(picture.path).stem)
    index = int(own[2]) if own is not None and own[1] == prompt.id else None
    return _with(picture, prompt, "caption", index)


def caption_prompt(text: str, where: str) -> tuple[Prompt | None, str | None]:
    """The prompt of a caption's text, or None and the reason; `where` names the caption.

    Raises:
        PromptError: a text that is no prompt.
    """
    found = prompt_of_caption(text)
    if found is None:
        return None, f"its caption {where} is empty"
    return Prompt(check_text(found, where)), None


def prompt_of_name(path: str) -> tuple[str, int] | None:
    """Prompt and number in a name of T2I-CompBench; None for other names."""
    match = COMPBENCH.fullmatch(os.path.splitext(os.path.basename(path))[0])
    return None if match is None else (match[1], int(match[2]))


def index_of_name(path: str) -> int | None:
    """The number at the end of a file's name; None if there is none."""
    match = NUMBER.search(os.path.splitext(os.path.basename(path))[0])
    return None if match is None else int(match[1])
