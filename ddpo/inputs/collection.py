"""Images of a user with their prompts, from files, folders, tables and archives.

`ddpo rewards score`, `compare`, `calibrate` and `ddpo eval --images` share this reader. It decodes
nothing, and keeps the names and prompts of only one folder or table in memory.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from ddpo.errors import ConfigError, ImageError, PromptError
from ddpo.inputs.address import refuse_address
from ddpo.inputs.archives import ArchivedImages, is_archive
from ddpo.inputs.columns import FILE, FILE_NAMES, IMAGE, INDEX, PROMPT, column_of, value_of
from ddpo.inputs.folder_prompts import FolderPrompts
from ddpo.inputs.image_files import ImageFiles, image_suffixes, natural_key
from ddpo.inputs.image_order import check_named_order, check_order
from ddpo.inputs.image_tables import BareNames, PromptTable, prompt_of_row
from ddpo.inputs.input_image import InputImage, image_of_file
from ddpo.inputs.tables import TABLES, Row, read_entries, read_table
from ddpo.inputs.text import check_text
from ddpo.prompts import listed_prompts
from ddpo.text import single_line
from ddpo.types import Prompt

__all__ = ["ImageSource", "first_images", "image_source", "with_prompts"]

NESTED_FILE: Final = ("path", "file_name")  # keys of an image stored as an object in a table


class ImageSource(Protocol):
    """Images in a fixed order, for repeated iteration."""

    left_out: Mapping[str, int]  # suffix → number of files that are not read

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[InputImage]: ...


def image_source(
    places: Sequence[Path], prompts: Path | None = None, prompt: str | None = None
) -> ImageSource:
    """The images of `places`, with prompts.

    Args:
        places: Image files, folders, tables of files or encoded images, and tar or zip archives.
            Files of a table are relative to it.
        prompts: Text file with one prompt per image, in order, or a table, by file if it has a
            column of files and else in order.
        prompt: Common prompt of all images. Without `prompts` and `prompt`, prompts come from the
            tables and archives, or from the folders (`ddpo.inputs.folder_prompts`).

    Raises:
        ConfigError: Both `prompts` and `prompt` are given, a table cannot be read, or the order of
            the images is uncertain.
        ImageError: A place does not exist, is an address, or holds no image.
        PromptError: The prompt file cannot be read, or has another number of prompts.
    """
    for place in places:
        refuse_address(place)
    if prompts is not None and prompt is not None:
        raise ConfigError("give --prompts or --prompt, not both")
    constant = None if prompt is None else Prompt(check_text(prompt, "--prompt"))
    parts = _parts(places, described=prompts is None and prompt is None)
    source: ImageSource = parts[0] if len(parts) == 1 else _Chain(parts)
    if constant is not None:
        return _Constant(source, constant)
    if prompts is None:
        return source
    table = next((part for part in parts if isinstance(part, _Table)), None)
    if table is not None:
        raise ConfigError(
            f"{table.path} is a table of images and brings its prompts; leave out --prompts"
        )
    if _is_table_of_files(prompts):
        return _ByFile(source, parts, prompts)
    texts = listed_prompts(prompts)
    if len(texts) != len(source):
        raise PromptError(
            f"{prompts} has {len(texts)} prompts for {len(source)} images; "
            "one line per image is needed, in their order"
        )
    _check_order(parts, prompts)
    return _InOrder(source, texts)


def first_images(source: ImageSource, count: int | None) -> ImageSource:
    """The first images of a source, at most `count` of them; None for all."""
    return source if count is None else _First(source, count)


def with_prompts(source: ImageSource, texts: Sequence[str]) -> ImageSource:
    """The same images with one prompt each, in order.

    Raises:
        PromptError: There is another number of prompts, or one is not text.
    """
    if len(texts) != len(source):
        raise PromptError(f"{len(source)} images came with {len(texts)} prompts")
    return _InOrder(source, [Prompt(check_text(text, "the prompts")) for text in texts])


def _parts(places: Sequence[Path], *, described: bool) -> list[Any]:
    """The sources of all places, where consecutive image files form one source.

    Args:
        places: Paths from the user.
        described: False if the user gives the prompts, so that no others are read.
    """
    parts: list[Any] = []
    files: list[Path] = []
    for place in places:
        if not place.is_dir() and not is_archive(place) and place.suffix.lower() not in TABLES:
            files.append(place)
            continue
        if files:
            parts.append(_Files(files, described))
            files = []
        parts += _folder_parts(place, described) if place.is_dir() else [_container(place)]
    if files:
        parts.append(_Files(files, described))
    return parts


def _container(path: Path) -> Any:
    if not path.exists():
        raise ImageError(f"{path}: no such file or folder")
    return ArchivedImages(path) if is_archive(path) else _Table(path)


def _folder_parts(folder: Path, described: bool) -> list[Any]:
    """The images of a folder, or else those in its Parquet files and archives."""
    try:
        return [_Folder(folder, described)]
    except ImageError:
        shards = [
            Path(parent, name)
            for parent, _, names in os.walk(folder)
            for name in names
            if not name.startswith(".") and (is_archive(name) or name.lower().endswith(".parquet"))
        ]
        if not shards:
            raise
    shards.sort(key=lambda path: [natural_key(part) for part in path.parts])
    return [_container(shard) for shard in shards]


class _Files:
    """Image files named one by one."""

    def __init__(self, paths: Sequence[Path], described: bool) -> None:
        self._files = ImageFiles(paths)
        self._described = described
        self.left_out = self._files.left_out

    def __len__(self) -> int:
        return len(self._files)

    def names(self) -> list[str]:
        """The paths of the images."""
        return list(self._files)

    def __iter__(self) -> Iterator[InputImage]:
        prompts = FolderPrompts()
        find = prompts.image if self._described else image_of_file
        for file in self._files:
            yield find(file)


class _Folder(_Files):
    """The image files of a folder."""

    def __init__(self, folder: Path, described: bool) -> None:
        super().__init__([folder], described)
        self._folder = folder

    def __iter__(self) -> Iterator[InputImage]:
        prompts = FolderPrompts(str(self._folder))
        find = prompts.image if self._described else image_of_file
        for file in self._files:
            yield find(file)

    def relative_names(self) -> list[str]:
        """The paths of the images relative to the folder."""
        return [os.path.relpath(file, self._folder) for file in self._files]


class _Table:
    """The images of a table, as files or as encoded bytes, and their prompts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: Mapping[str, int] = {}
        self._count = self._checked_rows()
        if not self._count:
            raise ImageError(f"{path} names no images")

    def _checked_rows(self) -> int:
        """The number of rows, after a check of each; encoded images in Parquet are not read."""
        count = 0
        for where, row in read_table(self.path):
            image = self._image(where, row)
            if image.data is not None and self.path.suffix.lower() == ".parquet":
                from pyarrow.parquet import read_metadata

                rows: int = read_metadata(self.path).num_rows
                return rows
            count += 1
        return count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[InputImage]:
        """The images; a row that was not checked and has none is an image that cannot be read."""
        for where, row in read_table(self.path):
            try:
                yield self._image(where, row)
            except (ConfigError, PromptError) as error:
                reason = single_line(str(error).removeprefix(f"{where}: "))
                yield InputImage(where, no_prompt=reason, origin="table", damage=reason)

    def _image(self, where: str, row: Row) -> InputImage:
        prompt = prompt_of_row(row, where)
        reason = None if prompt is not None or not _has_prompts(row) else f"{where} has no prompt"
        index = value_of(row, INDEX, where)
        column = _image_column(row, where)
        value = row[column]
        data, name = _bytes_and_name(value)
        if data is not None:
            file = f"{where}/{name}" if name else where
            return InputImage(file, prompt, reason, "table", index, data)
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where}: no image in the column {column!r}")
        refuse_address(name, where, ConfigError)
        found = image_of_file(_existing(self.path.parent, name))
        return replace(found, prompt=prompt, no_prompt=reason, origin="table", index=index)


def _image_column(row: Row, where: str) -> str:
    """The column of the image: one of encoded images first, then one of files."""
    for names in (IMAGE, FILE):
        column = column_of(row, names, where)
        if column is not None and (names is FILE or _bytes_and_name(row[column])[0] is not None):
            return column
    raise ConfigError(f"{where}: no file; a column must be called {FILE_NAMES}")


def _bytes_and_name(value: Any) -> tuple[bytes | None, str | None]:
    """The encoded image and file name of a cell: bytes, a path, or {bytes, path} of HF datasets."""
    if isinstance(value, bytes):
        return value, None
    if isinstance(value, Mapping):
        data = value.get("bytes")
        name = next((value[key] for key in NESTED_FILE if isinstance(value.get(key), str)), None)
        return (data if isinstance(data, bytes) else None), name
    return None, value if isinstance(value, str) else None


def _existing(folder: Path, name: str) -> str:
    """The path of a file named in a table, with forward slashes if only that path exists."""
    path = os.path.join(folder, name)
    if "\\" in name and not os.path.exists(path):
        other = os.path.join(folder, name.replace("\\", "/"))
        return other if os.path.exists(other) else path
    return path


def _has_prompts(row: Row) -> bool:
    return any(name.lower() in PROMPT for name in row)


class _Chain:
    """Several sources in sequence."""

    def __init__(self, parts: Sequence[ImageSource]) -> None:
        self._parts = parts
        counts = [Counter(part.left_out) for part in parts]
        self.left_out: Mapping[str, int] = sum(counts, Counter())

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __iter__(self) -> Iterator[InputImage]:
        for part in self._parts:
            yield from part


class _First:
    """The first images of a source."""

    def __init__(self, source: ImageSource, count: int) -> None:
        self._source = source
        self._count = count
        self.left_out = source.left_out

    def __len__(self) -> int:
        return min(self._count, len(self._source))

    def __iter__(self) -> Iterator[InputImage]:
        return islice(self._source, self._count)


class _Constant:
    """A source whose images all have one prompt."""

    def __init__(self, source: ImageSource, prompt: Prompt) -> None:
        self._source = source
        self._prompt = prompt
        self.left_out = source.left_out

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[InputImage]:
        for image in self._source:
            yield _given(image, self._prompt)


class _InOrder:
    """A source with one prompt per image, in order."""

    def __init__(self, source: ImageSource, prompts: Sequence[Prompt]) -> None:
        self._source = source
        self._prompts = prompts
        self.left_out = source.left_out

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[InputImage]:
        for image, prompt in zip(self._source, self._prompts, strict=True):
            yield _given(image, prompt)


class _ByFile:
    """A source with prompts by file from a table; images outside the table have none."""

    def __init__(self, source: ImageSource, parts: Sequence[Any], table: Path) -> None:
        self._source = source
        self._names = BareNames(PromptTable(table), (image.path for image in source))
        self.left_out = source.left_out

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[InputImage]:
        for image in self._source:
            row = self._names.find(image.path)
            found = None if row is None else row.prompt
            yield replace(_given(image, found), index=None if row is None else row.index)


def _given(image: InputImage, prompt: Prompt | None) -> InputImage:
    return replace(image, prompt=prompt, no_prompt=None, origin="given")


def _is_table_of_files(path: Path) -> bool:
    """True for a table whose first row names a file.

    Raises:
        ConfigError: The file is not a table, or its column of files has an unknown name.
        PromptError: The table has no rows.
    """
    if path.suffix.lower() not in TABLES:
        return False
    for where, entry in read_entries(path):
        if isinstance(entry, str):
            return False
        if column_of(entry, FILE, where) is not None:
            return True
        for column, value in entry.items():
            if isinstance(value, str) and os.path.splitext(value)[1].lower() in image_suffixes():
                wrong = f"the column {column!r} of files must be called {FILE_NAMES}"
                raise ConfigError(f"{where}: {wrong}")
        return column_of(entry, PROMPT, where) is None
    raise PromptError(f"{path} holds no prompt")


def _check_order(parts: Sequence[Any], prompts: Path) -> None:
    for part in parts:
        if isinstance(part, _Folder):
            check_order(part.relative_names(), prompts)
        elif isinstance(part, ArchivedImages):
            check_order(part.names, prompts)
        else:
            check_named_order(part.names(), prompts)
