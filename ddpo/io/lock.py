"""Locks for one owner per folder or file, which the system frees when the owner's process ends.

`flock` decides who owns. The text in the lock file only names the owner for refused processes.
Source: flock(2). The lock belongs to the open file, so that it also holds within one process. NFS
of Linux makes it a lock at the server, which holds between hosts (nfs(5), local_lock).

Where there is no `flock`, on some file systems and on Windows, the lock file itself is the lock:
only one process can make it. One whose process has ended is taken over on the same host.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ddpo.errors import RunExistsError, StorageFailure
from ddpo.io.atomic import remove_remains, storing, temporary_path
from ddpo.io.lock_file import FLAGS, has_ended, own_name, owner_of, record_of, text_of
from ddpo.io.process import here
from ddpo.io.sync import make_folder

try:
    import fcntl
except ImportError:  # Windows
    LOCKS = False
else:
    LOCKS = True

__all__ = ["LOCK_FILE", "LockWarning", "Ownership", "owned", "owned_file", "turn"]

LOCK_FILE: Final = ".lock"  # in a folder that has one owner
UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
UNABLE: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""Error numbers of file systems without locks."""
GONE: Final = (errno.ENOENT, errno.ESTALE)  # of a file that was removed, perhaps on another host
EMPTY_SECONDS: Final = 2.0  # time that an owner has to write its name, without `flock`
LOOK_SECONDS: Final = 0.05  # between two looks at a lock


class LockWarning(UserWarning):
    """A lock that protects less than one of this host and file system would."""


class OpenFile:
    """A descriptor that is closed once, and in every forked child.

    A child that outlives its parent would hold the lock for ever.

    Args:
        descriptor: descriptor of an open file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: int | None = descriptor
        _open.add(self)

    def close(self) -> None:
        """Closes the file, which frees its lock."""
        descriptor = self.descriptor
        self.descriptor = None
        if descriptor is not None:
            with suppress(OSError):  # of a file server that is gone
                os.close(descriptor)

    def is_at(self, path: Path) -> bool:
        """True if the file is the one at a path, and neither removed nor replaced."""
        if self.descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except OSError as error:
            if error.errno in GONE:
                return False
            raise


_open: weakref.WeakSet[OpenFile] = weakref.WeakSet()
_told: set[str] = set()  # warnings that this process gave


def _close_in_child() -> None:
    for file in list(_open):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


class Ownership:
    """The only owner of something, from its creation until `release` or the end of the process.

    Places that cannot be written have any number of owners.

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
        self._file: OpenFile | None = None
        with storing(what):
            try:
                self._file = _locked(lock)
            except BlockingIOError:
                owner = owner_of(lock)
                raise RunExistsError(f"{what} is in use by {owner}: {advice}") from None
            if self._file is not None and self._file.descriptor is not None:
                _note_other_host(lock)
                os.ftruncate(self._file.descriptor, 0)
                os.lseek(self._file.descriptor, 0, os.SEEK_SET)
                os.write(self._file.descriptor, own_name(command).encode())

    def release(self) -> None:
        """Gives up the ownership and removes the lock file."""
        file = self._file
        self._file = None
        if file is None or file.descriptor is None:  # None in a forked child
            return
        with suppress(OSError):
            if file.is_at(self._lock):
                if os.name == "nt":  # an open file cannot be removed
                    file.close()
                self._lock.unlink()
        file.close()

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
def owned_file(path: Path | None, command: str, option: str = "--out") -> Iterator[None]:
    """Makes this process the only one that writes a file or a new folder, by a lock beside it.

    What a killed owner left half written is removed.

    Args:
        path: file or folder to write; None for a block that writes none.
        command: as of `Ownership`.
        option: the option that names the path, for the advice.

    Raises:
        RunExistsError, StorageFailure: as of `Ownership`.
    """
    if path is None:
        yield
        return
    place = Path(os.path.abspath(path))
    lock = place.with_name(f".{place.name}{LOCK_FILE}")
    with owned(lock, path, command, f"wait for it to end, or choose another {option}"):
        remove_remains(place.parent, place.name)
        yield


@contextmanager
def turn(folder: Path) -> Iterator[bool]:
    """Waits until no other process is in such a block for the same folder; no file is made.

    It is true in the block, or false where folders cannot be locked, so that there is no wait.

    Raises:
        OSError: the folder cannot be made or opened.
    """
    if not LOCKS:
        yield False
        return
    make_folder(folder)
    file = OpenFile(os.open(folder, os.O_RDONLY))
    try:
        yield _wait_for(file)
    finally:
        file.close()


def _wait_for(file: OpenFile) -> bool:
    """Locks an open file as soon as it is free; false where there are no locks."""
    while file.descriptor is not None:
        try:
            return _flock(file.descriptor)
        except BlockingIOError:
            time.sleep(LOOK_SECONDS)
        except OSError:  # NFS locks alone only what may be written
            return False
    return False


def _locked(lock: Path) -> OpenFile | None:
    """The lock file, locked; None where it cannot be written.

    Raises:
        BlockingIOError: another process holds it.
        StorageFailure: something other than a file is in its place.
        OSError: it cannot be made.
    """
    while True:
        try:
            make_folder(lock.parent)
            found, made = _opened(lock)
        except OSError as error:
            if error.errno in UNWRITABLE:
                return None
            if error.errno in GONE:  # removed between two calls
                continue
            raise
        file = OpenFile(found)
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                raise _not_a_file(lock)
            if not _flock(found):
                _note_no_locks(lock)
                if not made:
                    file.close()
                    _remove_stale(lock)
                    continue
            if file.is_at(lock):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its owner has just removed it


def _opened(lock: Path) -> tuple[int, bool]:
    """A descriptor of the lock file, and true if this call made the file."""
    try:
        return os.open(lock, FLAGS | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        pass
    try:
        return os.open(lock, FLAGS), False
    except PermissionError:
        _remove_of_other_user(lock)
        raise FileNotFoundError(errno.ENOENT, "removed", str(lock)) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _not_a_file(lock) from error
        raise


def _remove_of_other_user(lock: Path) -> None:
    """Removes a lock file that this user may not write, unless its owner still holds it.

    Raises:
        BlockingIOError: its owner holds it.
        PermissionError: the folder cannot be written.
    """
    file = OpenFile(os.open(lock, os.O_RDONLY | (FLAGS & ~os.O_RDWR)))
    try:
        if file.descriptor is not None and not _flock(file.descriptor):
            raise BlockingIOError
        lock.unlink()
    finally:
        file.close()


def _not_a_file(lock: Path) -> StorageFailure:
    return StorageFailure(f"{lock} is a link, a folder or a device instead of a lock: remove it")


def _flock(descriptor: int) -> bool:
    """Locks an open file; false where there are no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    if not LOCKS:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in UNABLE:
            return False
        raise
    return True


def _remove_stale(lock: Path) -> None:
    """Removes a lock file whose process has ended, where there is no `flock`.

    Raises:
        BlockingIOError: the process runs, or its host cannot be asked.
    """
    if os.name == "nt":  # where an open file cannot be removed
        try:
            lock.unlink(missing_ok=True)
        except PermissionError:
            raise BlockingIOError from None
        return
    text = text_of(lock)
    until = time.monotonic() + EMPTY_SECONDS
    while not text and lock.exists() and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)  # its owner has not written its name yet
        text = text_of(lock)
    if text and not has_ended(text):
        raise BlockingIOError
    aside = temporary_path(lock)
    try:
        os.replace(lock, aside)
    except FileNotFoundError:
        return
    if text_of(aside) != text:  # another process was faster, and owns what was moved
        with suppress(OSError):
            os.link(aside, lock)
        aside.unlink(missing_ok=True)
        raise BlockingIOError
    aside.unlink(missing_ok=True)


def _note_no_locks(lock: Path) -> None:
    _warn(
        f"{lock.parent} is on a file system without locks: if a host fails while it uses the "
        f"folder, remove {lock.name} by hand"
    )


def _note_other_host(lock: Path) -> None:
    """Warns that the last owner was on another host, whose end cannot be seen from here."""
    record = record_of(text_of(lock))
    name = record.get("name")
    if isinstance(name, str) and record.get("host") != here() and name != socket.gethostname():
        _warn(
            f"{lock.parent} was in use by {owner_of(lock)}, which left its lock: "
            "if it still runs, stop one of the two"
        )


def _warn(text: str) -> None:
    """Gives a warning once in this process."""
    if text not in _told:
        _told.add(text)
        warnings.warn(text, LockWarning, stacklevel=2)
