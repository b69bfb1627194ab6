"""Files of a run folder that may be hostile: only what lies inside the folder is read.

A link inside a run may lead to any file of this machine, and a list of samples may be endless.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError
from ddpo.io.fields import Fields
from ddpo.io.json_files import read_json

__all__ = [
    "MOST_JSON",
    "Stamp",
    "file_inside",
    "folder_inside",
    "names_in",
    "numbered",
    "read_inside",
    "stamp_of",
]

MOST_ENTRIES: Final = 20_000  # of one folder; a grid per iteration for as many iterations
MOST_JSON: Final = 32 << 20  # bytes; a report of many models takes some MB
NUMBERED: Final = re.compile(r"iteration-([0-9]{6,15})(\.png)?")

Stamp = tuple[int, int, int]
"""Inode, size in bytes and time of change in ns of a file, which change with its content."""


def file_inside(folder: Path, *parts: str) -> Path | None:
    """The resolved path of a regular file inside a folder; None if there is none."""
    found = _inside(folder, parts)
    return found if found is not None and found.is_file() else None


def folder_inside(folder: Path, *parts: str) -> Path | None:
    """The resolved path of a folder inside another; None if there is none."""
    found = _inside(folder, parts)
    return found if found is not None and found.is_dir() else None


def read_inside(folder: Path, *parts: str, fields: Fields | None = None) -> Mapping[str, Any]:
    """The object in a JSON file inside a folder.

    Raises:
        CheckpointError: there is none, or it is damaged or too large.
    """
    path = file_inside(folder, *parts)
    name = "/".join(parts)
    if path is None:
        raise CheckpointError(f"it has no {name}")
    if path.stat().st_size > MOST_JSON:
        raise CheckpointError(f"its {name} has more than {MOST_JSON >> 20} MiB")
    return read_json(path, fields)


def stamp_of(path: Path | None) -> Stamp | None:
    """The stamp of a file; None without one."""
    try:
        facts = path.stat() if path is not None else None
    except OSError:
        return None
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns) if facts is not None else None


def numbered(folder: Path, *parts: str) -> dict[int, str]:
    """Iteration → name of the files or folders that a run numbers, such as its image grids."""
    inside = folder_inside(folder, *parts)
    if inside is None:
        return {}
    found = {}
    for name in names_in(inside):
        if match := NUMBERED.fullmatch(name):
            found[int(match[1])] = name
    return dict(sorted(found.items()))


def names_in(folder: Path) -> Iterator[str]:
    """The first names in a folder, at most 20,000; none of a folder that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, MOST_ENTRIES):
                yield entry.name
    except OSError:
        return


def _inside(folder: Path, parts: tuple[str, ...]) -> Path | None:
    try:
        found = folder.joinpath(*parts).resolve(strict=True)
        return found if found.is_relative_to(folder.resolve(strict=True)) else None
    except (OSError, ValueError, RuntimeError):  # a loop of links; a NUL character
        return None
