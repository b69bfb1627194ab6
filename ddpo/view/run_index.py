"""The run folders below the folders that a user named, found again on every look."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from ddpo.errors import CheckpointError, UnknownNameError

__all__ = ["RunIndex", "RunPlace"]

MOST_RUNS: Final = 500
MOST_ENTRIES: Final = 5_000  # of one folder
DEPTH: Final = 2  # levels of folders that are searched for runs
CONFIG: Final = "config.json"


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A run folder, and the word for it in addresses of the page."""

    key: str  # twelve hexadecimal digits of the path
    name: str  # path from the folder that the user named
    path: Path


class RunIndex:
    """Finds the runs below some folders; a link that leads out of its folder is not followed.

    Args:
        folders: run folders, and folders that hold run folders.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    @property
    def names(self) -> tuple[str, ...]:
        """The folders as the user named them."""
        return tuple(str(folder) for folder in self._folders)

    def check(self) -> None:
        """Checks that the folders exist.

        Raises:
            CheckpointError: one does not.
        """
        for folder in self._folders:
            if not folder.is_dir():
                what = "is no folder" if folder.exists() else "does not exist"
                raise CheckpointError(f"{folder} {what}: name run folders or a folder of runs")

    def runs(self) -> list[RunPlace]:
        """The runs in the order of their names, at most 500."""
        found: dict[Path, RunPlace] = {}
        for folder in self._folders:
            for path in islice(_runs_below(folder), MOST_RUNS):
                place = path.resolve()
                if len(found) < MOST_RUNS and place not in found:
                    found[place] = RunPlace(_key(place), _name(folder, path), place)
        return sorted(found.values(), key=lambda run: run.name)

    def find(self, key: str) -> RunPlace:
        """The run of a key.

        Raises:
            UnknownNameError: there is none.
        """
        for run in self.runs():
            if run.key == key:
                return run
        raise UnknownNameError("there is no such run: it may have been removed or moved")


def _runs_below(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Run folders in a folder, or the folder itself; nothing inside a run."""
    if (folder / CONFIG).is_file():
        yield folder
        return
    if depth:
        for child in _folders_in(folder):
            yield from _runs_below(child, depth - 1)


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden and do not lead out of it."""
    root = folder.resolve()
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in islice(entries, MOST_ENTRIES)
                if not entry.name.startswith(".") and entry.is_dir()
            )
        return [folder / name for name in names if (folder / name).resolve().is_relative_to(root)]
    except OSError:  # unreadable, or removed meanwhile
        return []


def _key(place: Path) -> str:
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:12]


def _name(folder: Path, path: Path) -> str:
    inner = os.path.relpath(path, folder)
    return folder.resolve().name if inner == "." else inner
