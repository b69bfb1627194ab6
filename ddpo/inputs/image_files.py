"""Image files of folders: their suffixes, their order, and the files left out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image

from ddpo.errors import ImageError
from ddpo.image_opening import FORMATS, HEIF_SUFFIXES, register_heif
from ddpo.io.atomic import printable
from ddpo.text import count

__all__ = [
    "HIDDEN",
    "JUNK",
    "ImageFiles",
    "find_images",
    "image_suffixes",
    "left_out_sentence",
    "natural_key",
]

BESIDE: Final = (".txt", ".caption", ".cap", ".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Suffixes of captions and tables, which belong to the images and do not count as left out."""

JUNK: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
DIGITS: Final = re.compile(r"([0-9]+)")
HIDDEN: Final = "hidden"
SHEET: Final = "contact sheet"
OWN_SAMPLE: Final = re.compile(r"[0-9a-f]{12}-\d+\.png")
"""Names of `ddpo sample`: prompt id and index."""


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of images that Pillow can read here, in lower case with their dot."""
    register_heif()
    registered = Image.registered_extensions()
    formats = Image.OPEN.keys() & set(FORMATS)
    readable = {suffix for suffix, name in registered.items() if name in formats}
    return frozenset(readable | {".mpo"})  # registered for writing only; the JPEG reader opens it


def natural_key(name: str) -> tuple[tuple[tuple[int, str] | str, ...], int, str]:
    """The sort key of a file name in natural order, which puts 2 before 10.

    Suffixes count last. Of equal numbers, such as 7 and 007, the shorter comes first.
    """
    parts: list[tuple[int, str] | str] = []
    for place, part in enumerate(DIGITS.split(os.path.splitext(name)[0])):
        if place % 2:
            digits = part.lstrip("0")
            parts.append((len(digits), digits))
        else:
            parts.append(part)
    return tuple(parts), len(name), name


class ImageFiles:
    """The image files of `places`, in order; a folder stands for the images below it.

    The files of a folder are in natural order (`natural_key`), folder by folder. Hidden files and
    folders are left out. A link to a folder is followed once, unless it leads into a folder that
    is read anyway. Each iteration reads the folders again, so that only the names of one are in
    memory.

    Attributes:
        left_out: Suffix or "hidden" → number of files that are not read.

    Raises:
        ImageError: A place does not exist, cannot be read, or is a folder without images.
    """

    left_out: Mapping[str, int]

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = [str(place) for place in places]
        counts = []
        left_out: Counter[str] = Counter()
        for place in self._places:
            if not os.path.lexists(place):
                raise ImageError(f"{printable(place)}: no such file or folder")
            counts.append(sum(1 for _ in _Walk(place, left_out)))
            if not counts[-1]:
                others = left_out_sentence(left_out)
                raise ImageError(
                    f"{printable(place)} holds no images" + (f"; {others}" if others else "")
                )
        self._count = sum(counts)
        self.left_out = left_out

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for place in self._places:
            yield from _Walk(place, Counter())


def left_out_sentence(left_out: Mapping[str, int]) -> str:
    """The files left out, such as "3 files left out: 2 .psd, 1 .mp4"; "" if there are none."""
    total = sum(left_out.values())
    if not total:
        return ""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    names = ", ".join(f"{number} {kind}" for kind, number in kinds)
    hint = ""
    if not register_heif() and any(kind in HEIF_SUFFIXES for kind in left_out):
        hint = " (HEIC: pip install 'ddpo[heif]')"
    return f"{count(total, 'file')} left out: {names}{hint}"


class _Walk:
    """The image files below one place; `left_out` counts the others."""

    def __init__(self, place: str, left_out: Counter[str]) -> None:
        self._place = place
        self._left_out = left_out
        self._entered = [os.path.realpath(place)]  # real paths of the place and of followed links

    def __iter__(self) -> Iterator[str]:
        if os.path.isdir(self._place):
            yield from self._below(self._place)
        else:
            yield self._place

    def _below(self, folder: str) -> Iterator[str]:
        names: list[str] = []
        folders: set[str] = set()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    kind = self._kind(entry)
                    if kind == "folder":
                        folders.add(entry.name)
                    if kind:
                        names.append(entry.name)
        except OSError as error:
            raise ImageError(f"{printable(folder)}: cannot be read ({error.strerror})") from error
        sheet = _contact_sheet(folder, names, folders)
        if sheet is not None:
            names.remove(sheet)
            self._left_out[SHEET] += 1
        for name in sorted(names, key=natural_key):
            path = os.path.join(folder, name)
            if name in folders:
                yield from self._below(path)
            else:
                yield path

    def _kind(self, entry: os.DirEntry[str]) -> str:
        """The kind of an entry, "folder" or "image"; "" for others, which are counted.

        A link that leads nowhere, or in a circle, is an image that cannot be read.
        """
        suffix = os.path.splitext(entry.name)[1].lower()
        hidden = entry.name.startswith(".")
        if entry.name.lower() in JUNK:
            return ""
        if _holds_true(entry.is_dir):
            return "folder" if not hidden and self._enters(entry) else ""
        if hidden:
            if suffix in image_suffixes() and not entry.name.startswith("._"):  # of macOS archives
                self._left_out[HIDDEN] += 1
            return ""
        if suffix in image_suffixes() and (_holds_true(entry.is_file) or entry.is_symlink()):
            return "image"
        if suffix not in BESIDE:
            self._left_out[suffix or "without a suffix"] += 1
        return ""

    def _enters(self, entry: os.DirEntry[str]) -> bool:
        """True for a folder, and for a link to a folder that is not read anyway."""
        if not entry.is_symlink():
            return True
        target = os.path.realpath(entry.path)
        for known in self._entered:
            if _holds(known, target) or _holds(target, known):
                return False
        self._entered.append(target)
        return True


def _holds_true(question: Callable[[], bool]) -> bool:
    """The answer about a folder's entry; False if the system refuses it, as for circular links."""
    try:
        return question()
    except OSError:
        return False


def _contact_sheet(folder: str, names: Sequence[str], folders: Collection[str]) -> str | None:
    """The overview image that a program wrote beside its images; None without one.

    `ddpo sample` writes sheet.png beside its images, GenEval's scripts grid.png beside `samples/`.
    """
    if "grid.png" in names and "samples" in folders:
        return "grid.png" if os.path.exists(os.path.join(folder, "metadata.jsonl")) else None
    images = [name for name in names if name not in folders and name != "sheet.png"]
    if "sheet.png" not in names or not images:
        return None
    if all(OWN_SAMPLE.fullmatch(name) for name in images):
        return "sheet.png"
    try:
        with open(os.path.join(folder, "metadata.jsonl"), "rb") as file:
            table = file.read()
    except OSError:
        return None
    return "sheet.png" if b'sheet.png"' not in table and os.fsencode(images[0]) in table else None


def _holds(folder: str, path: str) -> bool:
    """True if the real path `path` is `folder` or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def find_images(places: Sequence[Path]) -> list[Path]:
    """As `ImageFiles`, in a list."""
    return [Path(file) for file in ImageFiles(places)]
