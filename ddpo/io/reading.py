"""Files in use: what a process reads is not removed under it by a run that prunes.

Readers share a `flock`, which the remover needs alone. On NFS of Linux it also holds between hosts;
there, the remover must be able to write the file.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ddpo.errors import CheckpointError
from ddpo.io.lock import LOCKS, LOOK_SECONDS, OpenFile

if LOCKS:
    import fcntl

__all__ = ["in_use", "reading", "unused"]

WAIT_SECONDS: Final = 5.0  # a remover holds a file for two calls of the system


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Makes `in_use` true of a file for all processes; a missing file is no error.

    Raises:
        CheckpointError: the file was removed or replaced while it was opened.
    """
    try:
        file = OpenFile(os.open(path, os.O_RDONLY))
    except OSError:
        yield
        return
    try:
        _share(file)
        if not file.is_at(path):
            raise CheckpointError(
                f"{path.parent} was just removed or replaced by its run: choose a later checkpoint"
            )
        yield
    finally:
        file.close()


def in_use(path: Path) -> bool:
    """True if a process is `reading` a file."""
    with unused(path) as free:
        return not free


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """False if a process is `reading` a file; if true, none begins to within the block."""
    file = _opened(path)
    if file is None or file.descriptor is None:
        yield True
        return
    try:
        yield _locked_alone(file.descriptor)
    finally:
        file.close()


def _opened(path: Path) -> OpenFile | None:
    """The open file, for writing if possible; None without one or without locks."""
    if not LOCKS:
        return None
    for mode in (os.O_RDWR, os.O_RDONLY):  # NFS locks alone only what may be written
        with suppress(OSError):
            return OpenFile(os.open(path, mode))
    return None


def _locked_alone(descriptor: int) -> bool:
    """True unless other processes have locked an open file; also where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN)
    return True


def _share(file: OpenFile) -> None:
    """Locks an open file together with other readers, after the remover that holds it, if any."""
    until = time.monotonic() + WAIT_SECONDS
    while LOCKS and file.descriptor is not None:
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                return
            time.sleep(LOOK_SECONDS)
        except OSError:  # a file system without locks
            return
