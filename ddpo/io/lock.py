"""Locks for one owner per folder or file, which the system frees when the owner's process ends.

`flock` decides who owns. The text in the lock file only names the owner for refused processes.
Source: flock(2). The lock belongs to the open file, so that it also holds within one process.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ddpo.errors import RunExistsError
from ddpo.io.atomic import printable, storing
from ddpo.io.sync import make_folder

try:
    import fcntl
except ImportError:  # Windows
    LOCKS = False
else:
    LOCKS = True

__all__ = ["LOCK_FILE", "Ownership", "in_use", "owned", "reading"]

LOCK_FILE: Final = ".lock"  # in a folder that has one owner
UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
UNABLE: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""Error numbers of file systems without locks."""

NAME_BYTES: Final = 300  # read of a lock file, which names its owner in one line


class Ownership:
    """The only owner of something, from its creation until `release` or the end of the process.

    Places that cannot be written, and file systems without locks, have any number of owners.

    Args:
        lock: path of the lock file; made with its folder, and removed at the end.
        what: the thing that is owned, for the error, such as a run folder.
        command: the owner's command, for the error of others, such as "ddpo train"; no arguments,
            since they may hold secrets.
        advice: what to do if there is another owner.

    Raises:
        RunExistsError: another process owns it; names that process.
        StorageFailure: the lock file cannot be written.
    """

    def __init__(self, lock: Path, what: Path, command: str, advice: str) -> None:
        self._lock = lock
        self._descriptor: int | None = None
        if not LOCKS:
            return
        with storing(lock):
            self._descriptor = _locked(lock)
        if self._descriptor is not None and self._descriptor < 0:
            self._descriptor = None
            raise RunExistsError(f"{what} is in use by {_owner(lock)}: {advice}")
        if self._descriptor is not None:
            with storing(lock):
                os.ftruncate(self._descriptor, 0)
                os.write(self._descriptor, _own_name(command).encode())

    def release(self) -> None:
        """Gives up the ownership and removes the lock file."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            self._lock.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        self.release()


@contextmanager
def owned(lock: Path, what: Path, command: str, advice: str) -> Iterator[None]:
    """Makes this process the only owner in the block; arguments and errors as of `Ownership`."""
    ownership = Ownership(lock, what, command, advice)
    try:
        yield
    finally:
        ownership.release()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Makes `in_use` true of a file for all processes; a missing file is no error."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        if LOCKS:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def in_use(path: Path) -> bool:
    """True if a process is `reading` a file."""
    if not LOCKS:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _locked(lock: Path) -> int | None:
    """A descriptor of the locked file; -1 if another process holds it, None without locks."""
    while True:
        try:
            make_folder(lock.parent)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in UNWRITABLE:
                return None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return -1
            if error.errno in UNABLE:
                return None
            raise
        if _is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)  # its owner has just removed it


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _own_name(command: str) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return f"{command}, process {os.getpid()} on {socket.gethostname()}, since {since}\n"


def _owner(lock: Path) -> str:
    """The line in a lock file, safe to print."""
    try:
        with lock.open("rb") as file:
            text = file.read(NAME_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    return printable(text.strip()) or "another process"
