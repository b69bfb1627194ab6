"""Prompts of image files from their folders, by the first of these sources with a prompt.

1. a table at any level: `metadata.jsonl`, `.csv`, `.parquet` …, the nearest that names the image
2. a caption file beside the image: `cat.txt`, `cat.caption` or `cat.cap` for `cat.png`
3. the metadata in the image file (`ddpo.inputs.image_metadata`)
4. one row in `metadata.jsonl` for the whole folder, as in GenEval: `00000/samples/0000.png`
5. the image's name, as in T2I-CompBench: `samples/a green bench_000003.png`
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ddpo.errors import PromptError
from ddpo.inputs.captions import prompt_of_caption
from ddpo.inputs.image_metadata import embedded_prompt
from ddpo.inputs.image_tables import FilePrompt, PromptTable, folder_table
from ddpo.inputs.input_image import InputImage, Origin, image_of_file
from ddpo.inputs.text import check_text, read_text
from ddpo.types import Prompt

__all__ = [
    "CAPTIONS",
    "FolderPrompts",
    "caption_prompt",
    "index_of_name",
    "prompt_of_name",
    "with_own_text",
]

CAPTIONS: Final = (".txt", ".caption", ".cap")
"""Suffixes of captions: the web UI's, kohya's `--caption_extension`, and a short form in use."""

MAX_CAPTION: Final = 1024 * 1024  # bytes of a caption file, as in archives
ABOVE: Final = 2  # levels above the user's folder in which a table may lie
COMPBENCH: Final = re.compile(r"(.+ .+)_(\d{6})")
"""A prompt of several words and the image's number (Karine-Huang/T2I-CompBench, README)."""

OWN_SAMPLE: Final = re.compile(r"([0-9a-f]{12})-(\d+)")
"""Names of `ddpo sample`: prompt id and index."""

NUMBER: Final = re.compile(r"(\d+)$")


class FolderPrompts:
    """A finder of the prompts of image files, folder by folder.

    The tables of a folder and of those above it are in memory while its images are read.

    Args:
        root: Folder from the user; None for files named one by one.
    """

    def __init__(self, root: str | None = None) -> None:
        self._root = None if root is None else os.path.abspath(root)
        self._tables: dict[str, PromptTable | None] = {}
        self._folder = ""
        self._chain: list[PromptTable] = []

    def image(self, path: str) -> InputImage:
        """The image at `path` with its prompt.

        Raises:
            ConfigError, PromptError: A table is invalid.
        """
        image = image_of_file(path)
        row = self._row(path)
        if row is not None and row.prompt is not None:
            origin: Origin = "folder" if self._is_of_folder(row) else "table"
            index = row.index if row.index is not None or origin == "table" else index_of_name(path)
            if origin == "table" or (own := self._own_prompt(image)) is None:
                return _with(image, row.prompt, origin, index)
            return own
        return self._own_prompt(image) or image

    def _own_prompt(self, image: InputImage) -> InputImage | None:
        """The image with the prompt of its caption, metadata or name; None without any of them."""
        path = image.path
        stem = os.path.splitext(path)[0]
        for end in CAPTIONS:
            if os.path.isfile(stem + end):
                return _captioned(image, Path(stem + end))
        found = with_own_text(image, embedded_prompt(path), path)
        return None if found is image else found

    def _is_of_folder(self, row: FilePrompt) -> bool:
        return any(table.everything is row for table in self._chain)

    def _row(self, path: str) -> FilePrompt | None:
        """The row about the image in the nearest table that has its prompt."""
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
        """Folder → True if at or below the user's folder, from the image's folder upward."""
        levels: dict[str, bool] = {}
        while self._root is not None and folder != self._root:
            levels[folder] = True
            parent = os.path.dirname(folder)
            if parent == folder:  # a link leads out of the root
                break
            folder = parent
        levels[folder] = True
        for _ in range(ABOVE):
            folder = os.path.dirname(folder)
            levels.setdefault(folder, False)
        return levels


def _table_of(folder: str, named: bool) -> PromptTable | None:
    """The table of a folder; above the user's folder, only one called metadata."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return None
    if not named:
        names = [name for name in names if os.path.splitext(name)[0] == "metadata"]
    return folder_table(folder, names)


def _with(image: InputImage, prompt: Prompt, origin: Origin, index: Any) -> InputImage:
    return InputImage(
        image.file,
        prompt,
        origin=origin,
        index=index,
        data=image.data,
        place=image.place,
    )


def _captioned(image: InputImage, caption: Path) -> InputImage:
    """The image with the prompt of a caption file, or the reason why the file has none."""
    try:
        prompt, reason = caption_prompt(read_text(caption, MAX_CAPTION), str(caption))
    except PromptError as error:
        prompt = None
        reason = str(error)
    if prompt is None:
        return InputImage(
            image.file, no_prompt=reason, origin="caption", data=image.data, place=image.place
        )
    own = OWN_SAMPLE.fullmatch(Path(image.path).stem)
    index = int(own[2]) if own is not None and own[1] == prompt.id else None
    return _with(image, prompt, "caption", index)


def with_own_text(image: InputImage, embedded: str | None, name: str) -> InputImage:
    """The image with its embedded prompt or that of its name; unchanged without either.

    An invalid prompt, such as half an emoji, is the reason why the image has none.

    Args:
        image: Image without a prompt.
        embedded: Prompt in the metadata of the image, if any.
        name: Path or name of the file.
    """
    origin: Origin = "image"
    text = embedded
    index = None
    if text is None and (named := prompt_of_name(name)) is not None:
        origin = "name"
        text, index = named
    if text is None:
        return image
    try:
        prompt = Prompt(check_text(text, image.file))
    except PromptError as error:
        return replace(image, no_prompt=str(error), origin=origin)
    return replace(image, prompt=prompt, origin=origin, index=index)


def caption_prompt(text: str, where: str) -> tuple[Prompt | None, str | None]:
    """The prompt of a caption's text, or None and the reason; `where` names the caption.

    Raises:
        PromptError: The text is no prompt.
    """
    found = prompt_of_caption(text)
    if found is None:
        return None, f"its caption {where} is empty"
    return Prompt(check_text(found, where)), None


def prompt_of_name(path: str) -> tuple[str, int] | None:
    """The prompt and number in a file name of T2I-CompBench; None for other names."""
    match = COMPBENCH.fullmatch(os.path.splitext(os.path.basename(path))[0])
    return None if match is None else (match[1], int(match[2]))


def index_of_name(path: str) -> int | None:
    """The number at the end of a file name; None without one."""
    match = NUMBER.search(os.path.splitext(os.path.basename(path))[0])
    return None if match is None else int(match[1])
