"""Files and folders that survive a power cut: their bytes are forced from the cache to the disk.

Renaming a file makes it whole for other processes, not for the disk. A file system may commit the
new name before the bytes, or lose both, until the file and then its folder are synced.
Source: fsync(2), "does not necessarily ensure that the entry in the directory [...] has also
reached disk"; Pillai et al., All File Systems Are Not Created Equal, OSDI 2014.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

__all__ = [
    "IntervalSync",
    "make_folder",
    "sync_descriptor",
    "sync_file",
    "sync_files",
    "sync_folder",
    "sync_tree",
]

UNABLE: Final = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.EBADF)
"""Error numbers of things that cannot be synced: pipes, folders of some network file systems."""

SYNC_SECONDS: Final = 10.0  # most that a power cut takes from a journal
THREADS: Final = 16  # concurrent calls share one commit of the file system's journal
FULL_SYNC: Final = 51  # F_FULLFSYNC of macOS, whose fsync does not empty the disk's own cache


def sync_descriptor(descriptor: int) -> None:
    """Forces an open file to the disk; does nothing for what cannot be synced.

    Raises:
        OSError: the disk failed or is full, so that the bytes may be lost.
    """
    try:
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(descriptor, FULL_SYNC)
        else:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNABLE:
            raise


def sync_file(path: Path) -> None:
    """Forces the bytes of a file to the disk. Raises as `sync_descriptor`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to the disk: files that were made, renamed or removed there.

    A folder that cannot be opened for reading is left to the file system.

    Raises:
        OSError: as of `sync_descriptor`.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # also of every folder on Windows
        return
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_files(paths: Iterable[Path]) -> None:
    """Forces many files and their folders to the disk. Files that are not there are passed over.

    Raises:
        OSError: as of `sync_descriptor`.
    """
    files = list(dict.fromkeys(paths))
    folders = dict.fromkeys(path.parent for path in files)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="ddpo-sync") as pool:
        list(pool.map(_sync_if_there, files))
        list(pool.map(_sync_if_there, folders))
        list(pool.map(_sync_if_there, dict.fromkeys(folder.parent for folder in folders)))


def sync_tree(folder: Path) -> None:
    """Forces a folder and all that is in it to the disk. Raises as `sync_descriptor`."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_file(Path(place, name))
        sync_folder(Path(place))


def make_folder(folder: Path) -> None:
    """Makes a folder and its missing parents, all of which survive a power cut.

    Raises:
        OSError: one cannot be made.
    """
    missing = []
    place = folder
    while not place.exists() and place != place.parent:
        missing.append(place)
        place = place.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


class IntervalSync:
    """Syncs a file that grows, at most once in some seconds.

    Args:
        seconds: shortest time between two syncs.
    """

    def __init__(self, seconds: float = SYNC_SECONDS) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def written(self, descriptor: int) -> None:
        """Syncs an open file to which something was written, if that is due.

        Raises:
            OSError: as of `sync_descriptor`.
        """
        now = time.monotonic()
        if now - self._last >= self._seconds:
            sync_descriptor(descriptor)
            self._last = now


def _sync_if_there(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)
