"""Images in tar and zip archives: WebDataset shards and archived folders.

Members with equal names up to the first dot belong together: `000.jpg`, `000.txt`, `000.json`
(WebDataset, https://github.com/webdataset/webdataset). Nothing is unpacked to disk.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from ddpo.errors import ConfigError, DdpoError, ImageError, PromptError
from ddpo.image_opening import MAX_BYTES
from ddpo.inputs.folder_prompts import CAPTIONS, caption_prompt, with_own_text
from ddpo.inputs.image_files import HIDDEN, JUNK, image_suffixes, left_out_sentence
from ddpo.inputs.image_metadata import embedded_prompt
from ddpo.inputs.image_tables import PromptTable, prompt_of_row, same_name
from ddpo.inputs.input_image import InputImage
from ddpo.inputs.tables import TABLES
from ddpo.io.atomic import printable
from ddpo.io.json_files import JsonError, parse_foreign
from ddpo.text import single_line
from ddpo.types import Prompt

__all__ = ["ARCHIVES", "ArchivedImages", "is_archive"]

ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
MAX_TEXT: Final = 1024 * 1024  # bytes of a caption; larger members are no captions
MAX_TEXTS: Final = 256 * MAX_TEXT  # bytes of all captions, which are in memory together
MAX_TABLE: Final = 256 * 1024 * 1024  # bytes
EXTENDED_HEADERS: Final = (b"L", b"K", b"x", b"g", b"X")  # long names and pax records of tar


def is_archive(path: Path | str) -> bool:
    """True for a file name with the suffix of an archive."""
    return str(path).lower().endswith(ARCHIVES)


@dataclass(frozen=True, slots=True)
class _Member:
    archive: Path
    name: str
    size: int
    content: Callable[[], bytes]

    def read(self, largest: int) -> bytes:
        """The content of at most `largest` bytes; raises ImageError if it is larger or damaged."""
        if self.size > largest:
            raise ImageError(f"{self.path}: {self.size} bytes, more than {largest >> 20} MiB")
        with _readable(self.archive):
            return self.content()

    @property
    def path(self) -> str:
        """Its printable path, within that of the archive."""
        return printable(f"{self.archive}/{self.name}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the exceptions of the libraries, which are of many kinds, into ImageError."""
    try:
        yield
    except Exception as error:
        reason = single_line(str(error)) or type(error).__name__
        raise ImageError(f"{path} cannot be read as an archive: {reason}") from error


class ArchivedImages:
    """The images of an archive, in its order.

    The prompt of an image comes from a table called metadata in a folder of the archive, from a
    caption or JSON member with the same name, from the image's metadata, or from its name.

    Args:
        path: Path of the archive.

    Attributes:
        left_out: Suffix → number of members that are not read.
        names: Names of the images, in order.

    Raises:
        ImageError: The archive is damaged, of another kind, or without images.
        ConfigError, PromptError: A table or JSON member is invalid.
    """

    left_out: Mapping[str, int]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._captions: dict[str, dict[str, bytes]] = {}
        self._text_bytes = 0
        self._tables: list[tuple[str, PromptTable]] = []
        self.names: list[str] = []
        left_out: Counter[str] = Counter()
        for member in _members(path):
            self._take(member, left_out)
        if not self.names:
            others = left_out_sentence(left_out)
            raise ImageError(f"{path} holds no images" + (f"; {others}" if others else ""))
        self.left_out = left_out

    def _take(self, member: _Member, left_out: Counter[str]) -> None:
        folder, base = posixpath.split(member.name)
        parts = member.name.lower().split("/")
        if any(part in JUNK for part in parts) or base.startswith("._"):
            return
        suffix = os.path.splitext(base)[1].lower()
        if any(part.startswith(".") and part != "." and part != ".." for part in parts):
            left_out[HIDDEN] += suffix in image_suffixes()
        elif suffix in image_suffixes():
            self.names.append(member.name)
        elif base.lower().startswith("metadata.") and suffix in TABLES and _is_stem(base):
            self._tables.append((folder, self._table(member)))
        elif suffix in (*CAPTIONS, ".json") and member.size <= MAX_TEXT:
            self._keep_caption(member, suffix)
        else:
            left_out[suffix or "without a suffix"] += 1

    def _keep_caption(self, member: _Member, suffix: str) -> None:
        """Keeps the text of a caption; a damaged one is empty, so that its image has no prompt.

        Raises:
            ImageError: All captions together are too large.
        """
        try:
            text = member.read(MAX_TEXT)
        except ImageError:
            text = b""
        self._text_bytes += len(text)
        if self._text_bytes > MAX_TEXTS:
            raise ImageError(f"{self._path}: its captions take more than {MAX_TEXTS >> 20} MiB")
        self._captions.setdefault(_key(member.name), {})[suffix] = text

    def _table(self, member: _Member) -> PromptTable:
        """The table in a member, read through a temporary file."""
        with tempfile.TemporaryDirectory(prefix="ddpo-") as folder:
            path = Path(folder, posixpath.basename(member.name))
            path.write_bytes(member.read(MAX_TABLE))
            try:
                return PromptTable(path)
            except DdpoError as error:
                text = str(error).replace(str(path), f"{self._path}/{member.name}")
                raise type(error)(text) from error

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[InputImage]:
        names = set(self.names)
        for member in _members(self._path):
            if member.name in names:
                yield self._image(member)

    def _image(self, member: _Member) -> InputImage:
        try:
            data = member.read(MAX_BYTES)
        except ImageError as error:
            reason = str(error).removeprefix(f"{member.path}: ")
            return replace(self._described(member.name, member.path, b""), damage=reason)
        return self._described(member.name, member.path, data)

    def _described(self, member: str, file: str, data: bytes) -> InputImage:
        """The image in a member with its prompt."""
        for folder, table in self._tables:
            name = posixpath.relpath(member, folder or ".")
            row = table.rows.get(same_name(name)) or table.everything
            if row is not None and row.prompt is not None:
                return InputImage(file, row.prompt, origin="table", index=row.index, data=data)
        texts = self._captions.get(_key(member), {})
        prompt, reason = self._caption(member, texts)
        if texts and (prompt is not None or reason is not None):
            return InputImage(file, prompt, no_prompt=reason, origin="caption", data=data)
        return with_own_text(InputImage(file, data=data), embedded_prompt(data), member)

    def _caption(self, name: str, texts: Mapping[str, bytes]) -> tuple[Prompt | None, str | None]:
        """The prompt of an image's caption members, or the reason why they have none."""
        reason = None
        for end in (*CAPTIONS, ".json"):
            if end not in texts:
                continue
            where = printable(f"{self._path}/{posixpath.splitext(name)[0]}{end}")
            try:
                text = texts[end].decode("utf-8-sig")
                if end == ".json":
                    return _json_prompt(text, where), reason
                prompt, reason = caption_prompt(text, where)
            except UnicodeDecodeError:
                reason = f"{where} is not UTF-8 text"
                continue
            except (PromptError, ConfigError) as error:
                reason = str(error)
                continue
            if prompt is not None:
                return prompt, None
        return None, reason


def _json_prompt(text: str, where: str) -> Prompt | None:
    try:
        record = parse_foreign(text)
    except JsonError as error:
        raise ConfigError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{where}: not JSON (not an object)")
    return prompt_of_row(record, where)


def _key(name: str) -> str:
    """The common key of the members of one sample: the name up to the first dot of its base."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".", 1)[0])


def _is_stem(base: str) -> bool:
    return os.path.splitext(base)[0].lower() == "metadata"


def _members(path: Path) -> Iterator[_Member]:
    """The regular files of an archive, in order; each is readable until the next is taken."""
    with _readable(path):
        zipped = zipfile.is_zipfile(path)
        members = _zip_members(path) if zipped else _tar_members(path)
        member = next(members, None)
    while member is not None:
        yield member
        with _readable(path):
            member = next(members, None)


class _BoundedHeader(tarfile.TarInfo):
    """A header of tar whose names and records are read only if they are short."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENDED_HEADERS and self.size > MAX_TEXT:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member


def _tar_members(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, tarinfo=_BoundedHeader) as tar:
        plain = isinstance(tar.fileobj, io.BufferedReader)
        if plain and path.stat().st_size % tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is truncated")  # tarfile takes half a header for the end
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
            if info.isreg():
                yield _Member(path, info.name, info.size, partial(_read_tar, tar, info))


def _read_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    return b"" if file is None else file.read()


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield _Member(path, info.filename, info.file_size, partial(archive.read, info))
