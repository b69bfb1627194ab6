"""Atomic files and folders, which are whole or absent after a kill and after a power cut.

They are written under a temporary name in the same folder, synced and renamed; then their folder is
synced. Until then the previous file stays.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, DdpoError, StorageFailure, one_line
from ddpo.io.sync import make_folder, sync_file, sync_folder, sync_tree
from ddpo.text import printable

__all__ = [
    "atomic_folder",
    "atomic_path",
    "check_folder_writable",
    "check_writable",
    "named_path",
    "printable",
    "storing",
    "write_json",
    "write_text",
]

PROBE_BYTES: Final = 4096  # one block, which a full disk does not take


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file to write, which durably replaces `path` if the block succeeds.

    The file gets the permissions of a new file, whatever the writer set; safetensors, for example,
    makes files that only their owner can read.

    Args:
        path: Path of the file; missing folders are made.

    Raises:
        OSError: The file cannot be written; an earlier file at `path` stays.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        mode = _new_file(temporary)
        yield temporary
        temporary.chmod(mode)
        sync_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which durably replaces `folder` if the block succeeds.

    An earlier folder of that name is moved aside before, and removed afterwards.

    Args:
        folder: Path of the folder; missing parents are made.

    Raises:
        OSError: The folder cannot be written; an earlier folder stays.
    """
    make_folder(folder.parent)
    temporary = folder.with_name(f".{folder.name}.tmp")
    older = folder.with_name(f".{folder.name}.older.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        _set_new_file_modes(temporary)
        sync_tree(temporary)
        _put_in_place(temporary, folder, older)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after a failure its room is needed
        shutil.rmtree(older, ignore_errors=True)


def _new_file(path: Path) -> int:
    """Makes an empty file and returns its permissions, as the umask and the folder set them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _set_new_file_modes(folder: Path) -> None:
    """Sets the permissions of all files in a new folder to those of new files by the umask."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for place, _, names in os.walk(folder):
        for name in names:
            Path(place, name).chmod(mode)


def _put_in_place(new: Path, folder: Path, older: Path) -> None:
    """Renames a folder to its name; an earlier one of that name becomes `older`."""
    try:
        os.replace(new, folder)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    shutil.rmtree(older, ignore_errors=True)
    os.replace(folder, older)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(older, folder)
        raise


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an error of the disk in the block into one that names `path`, which it writes.

    Raises:
        StorageFailure: The file cannot be written; the message names `path` and the reason.
    """
    try:
        yield
    except DdpoError:
        raise
    except OSError as error:
        raise StorageFailure(
            f"{path} cannot be written: {error.strerror or one_line(error)}"
        ) from error
    except Exception as error:
        reason = _disk_error_of_safetensors(error)
        if reason is None:
            raise
        raise StorageFailure(f"{path} cannot be written: {reason}") from error


def _disk_error_of_safetensors(error: Exception) -> str | None:
    """The system's words in an error of safetensors, which is no OSError; None for other errors."""
    from safetensors import SafetensorError

    if not isinstance(error, SafetensorError):
        return None
    return one_line(error).rpartition("I/O error: ")[2].partition(" (os error ")[0]


def named_path(text: str | Path) -> Path:
    """The path a user names: `~` is the home folder, and a name matches in either Unicode form.

    Typed file names are mostly in the form NFC, and those written by macOS in NFD.
    """
    path = Path(text).expanduser()
    if os.path.exists(path):  # Path.exists raises if the name is too long
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in forms if os.path.exists(other)), path)


def check_writable(path: Path) -> None:
    """Raises unless a file can be written to `path`, whose folder it creates.

    Call it before spending time on the content of the file.

    Raises:
        ConfigError: `path` is a folder or cannot be written.
    """
    if os.path.isdir(path):  # Path.is_dir raises if the name is too long
        raise ConfigError(f"{path} is a folder, not a file to write")
    check_folder_writable(path.parent)
    try:
        with suppress(FileNotFoundError):
            os.lstat(path.with_name(f".{path.name}.{os.getpid()}.tmp"))  # the name may be too long
        make_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def check_folder_writable(folder: Path) -> None:
    """Raises unless files can be written into a folder, which may not exist yet; leaves nothing.

    Raises:
        ConfigError: The folder is a file or cannot be written, or its disk is full.
    """
    place = folder.absolute()
    try:
        while not os.path.lexists(place) and place != place.parent:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(place)  # the name may be too long
            place = place.parent
        if not place.is_dir():
            raise ConfigError(f"{folder} cannot be written: {place} is not a folder")
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; it survives a power cut.

    Raises:
        StorageFailure: The file cannot be written; an earlier file stays.
    """
    with storing(path), atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically, with non-ASCII characters unescaped.

    Raises:
        StorageFailure: As `write_text`.
        ValueError: A number is NaN or infinite, which JSON does not allow.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
